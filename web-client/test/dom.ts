// What editors need of a browser, in Node. It is imported before they are: some look whether it is
// there when they are loaded. Node's own `fetch` and timers stay, which the provider is tested with.
import { Window } from 'happy-dom';

const NAMES = [
  'document',
  'navigator',
  'getSelection',
  'getComputedStyle',
  'requestAnimationFrame',
  'cancelAnimationFrame',
  'MutationObserver',
  'Node',
  'Element',
  'HTMLElement',
  'DOMParser',
  'ClipboardEvent',
] as const;

const page = new Window({ url: 'http://127.0.0.1/' });
for (const name of NAMES) {
  const value: unknown = page[name];
  const bound = name.startsWith('get') || name.endsWith('Frame');
  Object.defineProperty(globalThis, name, {
    value: bound && typeof value === 'function' ? value.bind(page) : value,
    configurable: true,
    writable: true,
  });
}
Object.defineProperty(globalThis, 'window', { value: page, configurable: true, writable: true });
