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
        cursor: cursorOf(state.cursor),
      });
    }
    return states;
  }
}

function cursorOf(value: unknown): Cursor | null {
  if (typeof value !== 'object' || value === null) return null;
  const { anchor, head } = value as Record<string, unknown>;
  if (!isPosition(anchor) || !isPosition(head)) return null;
  return {
    anchor: Y.createRelativePositionFromJSON(anchor),
    head: Y.createRelativePositionFromJSON(head),
  };
}

/** Whether a value has the shape of a relative position, so that resolving it cannot throw. */
function isPosition(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  const { type, tname, item, assoc } = value as Record<string, unknown>;
  return (
    (type == null || isId(type)) &&
    (item == null || isId(item)) &&
    (tname == null || typeof tname === 'string') &&
    (assoc == null || Number.isInteger(assoc)) &&
    (type != null || tname != null || item != null)
  );
}

function isId(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { client, clock } = value as Record<string, unknown>;
  return Number.isSafeInteger(client) && Number.isSafeInteger(clock) && (clock as number) >= 0;
}
