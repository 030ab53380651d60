// Who is here: avatars, self first, and the form in which I say who I am.
import { type Cleanup, h, icon, setText } from './dom.ts';
import { attachPopover } from './overlay.ts';
import {
  COLOR_NAMES,
  COLORS,
  initials,
  me,
  NAME_LENGTH_MAX,
  onMeChange,
  paint,
  type Person,
  personOf,
  setMe,
} from './person.ts';
import type { DocumentSession } from './session.ts';

/** Avatars that are shown; the others are counted. */
const SHOWN_MAX = 5;

/** Name and colour, editable. */
export function identityForm(cleanups: Cleanup[]): HTMLElement {
  const input = h('input', {
    class: 'field',
    type: 'text',
    maxlength: NAME_LENGTH_MAX,
    autocomplete: 'nickname',
    spellcheck: 'false',
    'data-testid': 'own-name',
    on: {
      input: () => setMe({ name: input.value }),
      keydown: (event) => {
        if (event.key === 'Enter') input.closest<HTMLElement>('[popover]')?.hidePopover();
      },
      blur: () => {
        input.value = me().name;
      },
    },
  });
  const colors = COLORS.map((color, at) => {
    const radio = h('input', {
      type: 'radio',
      name: 'color',
      value: color,
      'aria-label': COLOR_NAMES[at],
      title: COLOR_NAMES[at],
      on: { change: () => setMe({ color }) },
    });
    radio.style.setProperty('--person', color);
    return radio;
  });
  const refresh = (person: Person) => {
    if (document.activeElement !== input) input.value = person.name;
    for (const radio of colors) radio.checked = radio.value === person.color;
  };
  refresh(me());
  cleanups.push(onMeChange(refresh));
  return h(
    'div',
    { class: 'identity' },
    h('label', { class: 'label' }, h('span', { text: 'Your name' }), input),
    h(
      'fieldset',
      { class: 'swatches' },
      h('legend', { class: 'label', text: 'Your colour' }),
      ...colors,
    ),
    h('p', {
      class: 'fine',
      text: 'Others see this beside your cursor. It is stored in this browser.',
    }),
  );
}

function avatar(person: Person): HTMLElement {
  const element = h('span', {
    class: 'avatar',
    'aria-hidden': 'true',
    text: initials(person.name),
  });
  paint(element, person);
  return element;
}

/** My own avatar as a button that opens the form. */
export function ownAvatar(cleanups: Cleanup[], extra?: HTMLElement): HTMLButtonElement {
  const button = h('button', { class: 'avatar-button', type: 'button', 'data-testid': 'self' });
  const refresh = (person: Person) => {
    button.replaceChildren(avatar(person), icon('pencil'));
    button.title = `${person.name} (you)`;
    button.setAttribute('aria-label', `${person.name}, you. Change name and colour`);
  };
  refresh(me());
  cleanups.push(onMeChange(refresh));
  const content = h(
    'div',
    { role: 'dialog', 'aria-label': 'Who you are' },
    identityForm(cleanups),
    extra,
  );
  cleanups.push(
    attachPopover(button, content, () => {
      const input = content.querySelector('input');
      input?.focus();
      input?.select();
    }),
  );
  return button;
}

/** The list of people in the document. */
export function peopleList(session: DocumentSession, cleanups: Cleanup[]): HTMLElement {
  const { awareness } = session;
  const others = h('ul', { class: 'roster' });
  const heading = h('p', { class: 'label' });
  const own = h(
    'li',
    { class: 'person self', 'data-client-id': awareness.clientID },
    ownAvatar(cleanups, h('div', { class: 'roster-block' }, heading, others)),
  );
  const list = h(
    'ul',
    { class: 'people', 'data-testid': 'people', 'aria-label': 'People in this document' },
    own,
  );
  const more = h('li', { class: 'person more', 'aria-hidden': 'true' });

  const refresh = () => {
    own.title = me().name;
    const people: { readonly id: number; readonly person: Person }[] = [];
    for (const [id, state] of awareness.getStates()) {
      if (id === awareness.clientID || !('user' in state)) continue;
      people.push({ id, person: personOf(state.user, id) });
    }
    people.sort((a, b) => a.id - b.id);

    const signature = people
      .map(({ id, person }) => `${id} ${person.color} ${person.name}`)
      .join('\n');
    if (list.dataset.shown === signature) return;
    list.dataset.shown = signature;
    list.replaceChildren(
      own,
      ...people.map(({ id, person }, at) =>
        h(
          'li',
          {
            class: at < SHOWN_MAX - 1 ? 'person' : 'person visually-hidden',
            'data-client-id': id,
            title: person.name,
          },
          avatar(person),
          h('span', { class: 'visually-hidden', text: person.name }),
        ),
      ),
    );
    const hidden = people.length - (SHOWN_MAX - 1);
    if (hidden > 0) {
      more.textContent = `+${hidden}`;
      list.append(more);
    }
    setText(
      heading,
      people.length === 0
        ? 'Nobody else is here yet. Copy the link and send it.'
        : `Also here (${people.length})`,
    );
    others.replaceChildren(
      ...people.map(({ person }) => h('li', {}, avatar(person), h('span', { text: person.name }))),
    );
  };
  const refreshSelf = () => {
    own.title = me().name;
  };
  refresh();
  awareness.on('change', refresh);
  cleanups.push(() => awareness.off('change', refresh), onMeChange(refreshSelf));
  return list;
}
