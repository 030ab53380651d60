// Awareness as editors may see it. A state is JSON from anybody: an editor that trusts its shape can be
// broken by one peer, for everybody. Here each state is read once, and only what is right goes on.
import type { Awareness } from 'y-protocols/awareness';
import * as Y from 'yjs';

import { type Person, personOf } from './person.ts';

/** Where somebody's selection is. */
export interface Cursor {
  readonly anchor: Y.RelativePosition;
  readonly head: Y.RelativePosition;
}

/** What others may be known by. */
export interface CheckedState {
  readonly user: Person & { readonly clientId: number };
  readonly cursor: Cursor | null;
}

/** The part of `Awareness` that editor bindings use. */
export class CheckedAwareness {
  readonly clientID: number;
  readonly on: Awareness['on'];
  readonly off: Awareness['off'];
  readonly setLocalStateField: Awareness['setLocalStateField'];
  readonly getLocalState: Awareness['getLocalState'];
  readonly #inner: Awareness;

  constructor(inner: Awareness) {
    this.#inner = inner;
    this.clientID = inner.clientID;
    this.on = inner.on.bind(inner);
    this.off = inner.off.bind(inner);
    this.setLocalStateField = inner.setLocalStateField.bind(inner);
    this.getLocalState = inner.getLocalState.bind(inner);
  }

  get states(): Map<number, CheckedState> {
    return this.getStates();
  }

  getStates(): Map<number, CheckedState> {
    const states = new Map<number, CheckedState>();
    for (const [id, state] of this.#inner.getStates()) {
      states.set(id, {
        user: { ...personOf(state.user, id), clientId: id },
        cursor: cursorOf(state.cursor, this.#inner.doc),
      });
    }
    return states;
  }
}

function cursorOf(value: unknown, doc: Y.Doc): Cursor | null {
  if (typeof value !== 'object' || value === null) return null;
  const { anchor, head } = value as Record<string, unknown>;
  if (typeof anchor !== 'object' || anchor === null || typeof head !== 'object' || head === null)
    return null;
  try {
    const cursor = {
      anchor: Y.createRelativePositionFromJSON(anchor),
      head: Y.createRelativePositionFromJSON(head),
    };
    // A position that cannot be resolved is none; one that throws here would throw in the editor.
    const known =
      Y.createAbsolutePositionFromRelativePosition(cursor.anchor, doc) &&
      Y.createAbsolutePositionFromRelativePosition(cursor.head, doc);
    return known ? cursor : null;
  } catch {
    return null;
  }
}
