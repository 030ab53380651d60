// What people are told about their edits.

/**
 * - `saved`: every edit is on the server's disk,
 * - `saving`: edits are on their way,
 * - `offline-kept`: there is no session, and every edit that the server may not have is on this
 *   device's disk,
 * - `not-saved`: edits are in this page's memory only and nothing is under way to change that, or the
 *   server does not take them.
 */
export type SaveState = 'saved' | 'saving' | 'offline-kept' | 'not-saved';

/** Without a session and without local storage, edits count as on their way for so long, in ms. */
export const GRACE = 8_000;

/** What the state follows from. */
export interface SaveFacts {
  /** How many edits are not known to be durable on the server. */
  readonly edits: number;
  /** The server does not take them. */
  readonly refused: boolean;
  /** A session is joined. */
  readonly connected: boolean;
  /** A session is wanted, and the server has not refused it for good. */
  readonly willConnect: boolean;
  /** All of them are in local storage, durably. */
  readonly kept: boolean;
  /** How long there have been such edits, in milliseconds. */
  readonly unsavedFor: number;
}

/** The state that follows from the facts. */
export function saveState(facts: SaveFacts): SaveState {
  if (facts.edits === 0) return 'saved';
  if (facts.refused) return 'not-saved';
  if (facts.connected) return 'saving';
  if (facts.kept) return 'offline-kept';
  return facts.willConnect && facts.unsavedFor < GRACE ? 'saving' : 'not-saved';
}
