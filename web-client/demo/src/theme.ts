// Light or dark: what the system says, until somebody chooses.
import { type Cleanup, h, icon } from './dom.ts';
import { recall, remember } from './storage.ts';

type Theme = 'light' | 'dark';

const KEY = 'cowrite.theme';
const dark = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

function chosen(): Theme | null {
  const value = recall('localStorage', KEY);
  return value === 'light' || value === 'dark' ? value : null;
}

let choice = chosen();

function current(): Theme {
  return choice ?? (dark.matches ? 'dark' : 'light');
}

function show(): void {
  if (choice) document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
  for (const listener of listeners) listener();
}

/** Applies the choice, and follows it in other tabs. */
export function startTheme(): void {
  show();
  dark.addEventListener('change', show);
  addEventListener('storage', (event) => {
    if (event.key !== KEY) return;
    choice = chosen();
    show();
  });
}

/** A button that changes over. Choosing what the system says anyway forgets the choice. */
export function themeButton(cleanups: Cleanup[]): HTMLButtonElement {
  const button = h('button', {
    class: 'icon-button',
    type: 'button',
    on: {
      click: () => {
        const next = current() === 'dark' ? 'light' : 'dark';
        choice = next === (dark.matches ? 'dark' : 'light') ? null : next;
        remember('localStorage', KEY, choice);
        show();
      },
    },
  });
  const refresh = () => {
    const label = current() === 'dark' ? 'Light theme' : 'Dark theme';
    button.title = label;
    button.setAttribute('aria-label', label);
    button.replaceChildren(icon(current() === 'dark' ? 'sun' : 'moon'));
  };
  listeners.add(refresh);
  cleanups.push(() => void listeners.delete(refresh));
  refresh();
  return button;
}
