// What the document page asks of an editor.
import type { Awareness } from 'y-protocols/awareness';
import type { Doc } from 'yjs';

/** How long what arrived is marked, in milliseconds: as long as the animation in the style sheet. */
export const ARRIVAL_MS = 3500;

export interface EditorOptions {
  readonly doc: Doc;
  readonly awareness: Awareness;
  /** Where the editor and its toolbar go. */
  readonly toolbarHost: HTMLElement;
  readonly host: HTMLElement;
  /** Text that is shown while the document is empty. */
  readonly placeholder: string;
}

/** An editor in the page. */
export interface Editor {
  readonly setEditable: (editable: boolean) => void;
  /** Marks, for a moment, what arrives from others while `marking`. */
  readonly setMarking: (marking: boolean) => void;
  /** Counts the words of the document. */
  readonly words: () => number;
  readonly onContent: (listener: () => void) => void;
  readonly focus: () => void;
  readonly destroy: () => void;
}

export type MountEditor = (options: EditorOptions) => Editor;

/** Words in a text: what has a letter or a digit in it, up to the next space. */
export function countWords(text: string): number {
  let count = 0;
  for (const _word of text.matchAll(/[\p{L}\p{N}]\S*/gu)) count += 1;
  return count;
}
