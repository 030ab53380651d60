// Copies of an older history of a document, which could not be joined with what the server has now.
import { deleteKept, listKept, readKept } from 'cowrite-client';

import { serverUrl } from './place.ts';

export interface Kept {
  readonly name: string;
  /** All of it, as one Yjs v1 update. */
  readonly update: Uint8Array;
  /** Deletes it from this browser. */
  readonly forget: () => void;
}

/** The first copy that is kept of a document, or `null`. Calls `onChange` after it was deleted. */
export async function keptCopy(document: string, onChange: () => void): Promise<Kept | null> {
  try {
    const [name] = await listKept({ url: serverUrl(), document });
    if (name === undefined) return null;
    const update = await readKept(name);
    return { name, update, forget: () => void deleteKept(name).then(onChange, onChange) };
  } catch {
    // A browser that keeps nothing has no copies.
    return null;
  }
}
