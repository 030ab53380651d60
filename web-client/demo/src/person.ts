// People: who I am on this device, and what others say about themselves, made safe to show.
import { guestName } from './place.ts';
import { recall, remember } from './storage.ts';

export interface Person {
  readonly name: string;
  /** `#rrggbb`. */
  readonly color: string;
}

/** Dark enough for white letters, far enough apart to be told from each other. */
export const COLORS: readonly Person['color'][] = [
  '#0f766e',
  '#c2410c',
  '#1d5fc4',
  '#9333b8',
  '#3f7a1f',
  '#be1850',
  '#5146c9',
  '#98600a',
];

export const COLOR_NAMES: readonly string[] = [
  'Teal',
  'Orange',
  'Blue',
  'Purple',
  'Green',
  'Rose',
  'Indigo',
  'Amber',
];

/** Longest name that is shown and sent, in characters. */
export const NAME_LENGTH_MAX = 40;

const NAME_KEY = 'cowrite.name';
const COLOR_KEY = 'cowrite.color';

let self: Person | null = null;
const listeners = new Set<(person: Person) => void>();

/** Who I am on this device. A guest gets a friendly name, and keeps it. */
export function me(): Person {
  if (!self) {
    const random = COLORS[crypto.getRandomValues(new Uint32Array(1))[0]! % COLORS.length]!;
    self = {
      name: cleanName(recall('localStorage', NAME_KEY)) || guestName(),
      color: cleanColor(recall('localStorage', COLOR_KEY)) ?? random,
    };
    remember('localStorage', NAME_KEY, self.name);
    remember('localStorage', COLOR_KEY, self.color);
  }
  return self;
}

/** Changes who I am, here and for everybody who sees me. */
export function setMe(change: Partial<Person>): void {
  const before = me();
  self = {
    name: cleanName(change.name) || before.name,
    color: cleanColor(change.color) ?? before.color,
  };
  remember('localStorage', NAME_KEY, self.name);
  remember('localStorage', COLOR_KEY, self.color);
  for (const listener of listeners) listener(self);
}

export function onMeChange(listener: (person: Person) => void): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** The form that others read: y-codemirror and Tiptap look for these names. */
export function awarenessUser(person: Person): Record<string, string> {
  return { name: person.name, color: person.color, colorLight: `${person.color}33` };
}

/** What an awareness state says about its sender. It comes from anybody, so nothing of it is trusted. */
export function personOf(user: unknown, clientId: number): Person {
  const said = typeof user === 'object' && user !== null ? (user as Record<string, unknown>) : {};
  return {
    name: cleanName(said.name) || 'Guest',
    color: cleanColor(said.color) ?? COLORS[clientId % COLORS.length]!,
  };
}

function cleanName(value: unknown): string {
  if (typeof value !== 'string') return '';
  // Control characters, and those that turn the direction of text around them.
  const plain = value.replace(/[\p{Cc}\p{Bidi_Control}]/gu, ' ');
  return Array.from(plain.replace(/\s+/g, ' ').trim()).slice(0, NAME_LENGTH_MAX).join('');
}

function cleanColor(value: unknown): string | null {
  return typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value) ? value.toLowerCase() : null;
}

/** One or two letters for an avatar. */
export function initials(name: string): string {
  const words = name.split(' ').filter(Boolean);
  const letters = words.length > 1 ? [words[0]!, words.at(-1)!] : [words[0] ?? '?'];
  return letters.map((word) => Array.from(word)[0]!.toLocaleUpperCase()).join('');
}

/** Black or white, whichever is read better on `color` (`#rrggbb`). */
export function inkOn(color: string): '#000' | '#fff' {
  const channel = (at: number) => {
    const value = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const luminance = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  // Where the contrast to black equals that to white.
  return luminance > 0.179 ? '#000' : '#fff';
}

/** Gives an element the colours of a person, for the style sheet to use. */
export function paint(element: HTMLElement, person: Person): void {
  element.style.setProperty('--person', person.color);
  element.style.setProperty('--person-ink', inkOn(person.color));
}
