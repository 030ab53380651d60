// A toolbar of an editor: one stop for the Tab key, arrow keys inside.
import { h, icon, type IconName } from './dom.ts';

export interface Tool {
  readonly name: string;
  /** An icon, or a letter or two. */
  readonly face: IconName | { readonly letters: string };
  /** As people read it: `Mod` becomes the key of the platform. */
  readonly keys?: string;
  readonly run: () => void;
  /** Whether it holds where the cursor is. Tools without it are not toggles. */
  readonly pressed?: () => boolean;
  readonly enabled?: () => boolean;
}

export interface Toolbar {
  readonly element: HTMLElement;
  /** Shows again what holds and what can be done. */
  readonly refresh: () => void;
}

const APPLE = /Mac|iPhone|iPad/.test(navigator.userAgent);

function keysText(keys: string): string {
  return APPLE
    ? keys.replace('Mod-', '⌘').replace('Alt-', '⌥').replace('Shift-', '⇧')
    : keys.replace('Mod', 'Ctrl').replaceAll('-', '+');
}

export function toolbar(
  label: string,
  groups: readonly (readonly Tool[])[],
  writable: () => boolean,
): Toolbar {
  const entries: { readonly tool: Tool; readonly button: HTMLButtonElement }[] = [];
  const element = h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': label });
  for (const group of groups) {
    const part = h('div', { class: 'tool-group', role: 'group' });
    for (const tool of group) {
      const hint = tool.keys ? `${tool.name} (${keysText(tool.keys)})` : tool.name;
      const button = h(
        'button',
        {
          class: 'tool',
          type: 'button',
          title: hint,
          'aria-label': tool.name,
          tabindex: entries.length === 0 ? 0 : -1,
          on: {
            // The editor keeps its selection.
            mousedown: (event) => event.preventDefault(),
            click: () => {
              tool.run();
              refresh();
            },
          },
        },
        typeof tool.face === 'string'
          ? icon(tool.face)
          : h('span', { class: 'letters', 'aria-hidden': 'true', text: tool.face.letters }),
      );
      entries.push({ tool, button });
      part.append(button);
    }
    element.append(part);
  }

  element.addEventListener('keydown', (event) => {
    const at = entries.findIndex(({ button }) => button === document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    let to: number;
    if (step !== undefined) to = (at + step + entries.length) % entries.length;
    else if (event.key === 'Home') to = 0;
    else if (event.key === 'End') to = entries.length - 1;
    else return;
    event.preventDefault();
    entries.forEach(({ button }, index) => {
      button.tabIndex = index === to ? 0 : -1;
    });
    entries[to]?.button.focus();
  });

  const refresh = () => {
    for (const { tool, button } of entries) {
      if (tool.pressed) button.setAttribute('aria-pressed', String(tool.pressed()));
      // Not `disabled`: a button that holds the focus must not lose it.
      button.setAttribute('aria-disabled', String(!(writable() && (tool.enabled?.() ?? true))));
    }
  };
  element.addEventListener(
    'click',
    (event) => {
      const button = (event.target as Element).closest('button');
      if (button?.getAttribute('aria-disabled') === 'true') event.stopImmediatePropagation();
    },
    { capture: true },
  );
  refresh();
  return { element, refresh };
}
