// The access token, for servers that want one. Kept for the tab and for one server, never in a link.
import { h, icon } from './dom.ts';
import { serverUrl } from './place.ts';
import { recall, remember } from './storage.ts';

const key = () => `cowrite.token:${serverUrl()}`;

/** The token for the server that is spoken to, if one was given in this tab. */
export function token(): string | undefined {
  return recall('sessionStorage', key()) ?? undefined;
}

/** A form that asks for a token, and calls `onToken` after it is kept. */
export function tokenForm(onToken: () => void): HTMLFormElement {
  const input = h('input', {
    class: 'field',
    type: 'password',
    name: 'token',
    required: true,
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'Access token',
    'aria-label': 'Access token',
    'data-testid': 'token',
  });
  return h(
    'form',
    {
      class: 'token-form',
      on: {
        submit: (event) => {
          event.preventDefault();
          const value = input.value.trim();
          if (!value) return;
          remember('sessionStorage', key(), value);
          onToken();
        },
      },
    },
    input,
    h('button', { class: 'button primary', type: 'submit' }, icon('lock'), 'Use token'),
  );
}
