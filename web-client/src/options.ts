// What a provider is made with, and what it tells.
import type { Awareness } from 'y-protocols/awareness';
import type { CowriteError, Reason } from './errors.js';
import type { SaveState } from './save-state.js';
import type { DocumentAccess } from './session.js';
import type { Status } from './state.js';
import type { Token } from './token.js';
import type { Transport } from './transport.js';

/** How to keep a document in sync. */
export interface CowriteOptions {
  /** The server's address, such as `https://docs.example.org`. */
  readonly url: string;
  /**
   * The document's id: 1 to 128 ASCII letters, digits and `._~:@+-`, in segments divided by `/`.
   */
  readonly document: string;
  /**
   * Credentials. A function is called for each session, and again before a JWT with `iat` and `exp`
   * expires.
   */
  readonly token?: Token | undefined;
  /** Whose states are shared; a new one by default, `null` for none. */
  readonly awareness?: Awareness | null | undefined;
  /**
   * Where edits wait for the server. `indexeddb` by default where there is IndexedDB, else `false`:
   * then edits without a session are in memory only.
   */
  readonly persistence?: 'indexeddb' | false | undefined;
  /** Connect at once. Default `true`. */
  readonly connect?: boolean | undefined;
  /** `read` asks for no more than reading; by default for all that the credentials allow. */
  readonly access?: 'read' | undefined;
  /** Replaces the platform's `fetch`. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** Replaces gRPC-Web altogether, for tests. */
  readonly transport?: Transport | undefined;
}

/** A session, or an attempt to have one, has ended. */
export interface ClosedEvent {
  /** The server's reason, `UNSPECIFIED` where the network was the cause. */
  readonly reason: Reason;
  /** For people who look after the application. */
  readonly message: string;
  /** There will be no further attempt before `connect()`. */
  readonly permanent: boolean;
  /** When the next attempt is made, in milliseconds from now. */
  readonly retryAfter?: number;
}

/**
 * The document has another history on the server: it was restored or rebuilt. The local copy was not
 * merged, because that would duplicate content, and is kept.
 */
export interface ForkEvent {
  /** The history of the local copy, in hexadecimal. */
  readonly epoch: string;
  /** Under which name it is kept on this device, for `readKept`; `undefined` without persistence. */
  readonly kept: string | undefined;
  /** All of it, as one Yjs v1 update. */
  readonly update: Uint8Array;
}

/** The events of a provider. */
export interface CowriteEvents {
  status: (event: { readonly status: Status }) => void;
  /** The local copy has everything that the server had when the session began, or no longer. */
  synced: (synced: boolean) => void;
  saved: (state: SaveState) => void;
  access: (access: DocumentAccess) => void;
  closed: (event: ClosedEvent) => void;
  fork: (event: ForkEvent) => void;
  /** Something did not work that has no event of its own: local storage, the token function. */
  error: (error: CowriteError) => void;
}
