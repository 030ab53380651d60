// What is asked of a Yjs document, and how its quirks are kept from the rest.
import * as Y from 'yjs';
import { CowriteError, guard, report } from './errors.js';
import type { State } from './unconfirmed.js';

/** Everything that `doc` has and `since` has not, without what hangs in the air. */
export function difference(doc: Y.Doc, since: State): Uint8Array {
  const encoded = since instanceof Uint8Array ? since : Y.encodeStateVector(new Map(since));
  const { pendingStructs, pendingDs } = doc.store;
  doc.store.pendingStructs = doc.store.pendingDs = null;
  try {
    return Y.encodeStateAsUpdate(doc, encoded);
  } finally {
    doc.store.pendingStructs = pendingStructs;
    doc.store.pendingDs = pendingDs;
  }
}

/** `doc` has content that the state vector does not cover. Deletions do not show in either. */
export function hasMore(doc: Y.Doc, stateVector: Uint8Array): boolean {
  const known = Y.decodeStateVector(stateVector);
  for (const [client, clock] of Y.decodeStateVector(Y.encodeStateVector(doc))) {
    if (clock > (known.get(client) ?? 0)) return true;
  }
  return false;
}

/**
 * Applies what the server sent. Returns whether the document has no gaps. Throws `CowriteError` with
 * code `protocol` for bytes that are no update.
 */
export function applyRemote(doc: Y.Doc, update: Uint8Array, origin: unknown): boolean {
  try {
    Y.applyUpdate(doc, update, origin);
  } catch (error) {
    if (!isUpdate(update)) {
      throw new CowriteError('protocol', 'an update that cannot be applied', { cause: error });
    }
    // Something that observes the document threw it, after the update was applied.
    report(error);
  }
  return doc.store.pendingStructs === null && doc.store.pendingDs === null;
}

/** Applies what was kept, in one transaction. Returns what went wrong with a part of it, if it did. */
export function restore(doc: Y.Doc, updates: readonly Uint8Array[], origin: unknown): unknown {
  let failure: unknown;
  const apply = () => {
    for (const update of updates) {
      try {
        Y.applyUpdate(doc, update, origin);
      } catch (error) {
        failure = error;
      }
    }
  };
  guard(() => Y.transact(doc, apply, origin, false));
  return failure;
}

function isUpdate(bytes: Uint8Array): boolean {
  try {
    Y.decodeUpdate(bytes);
    return true;
  } catch {
    return false;
  }
}
