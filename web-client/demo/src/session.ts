// One open document: its Yjs document, its awareness, and the provider that connects them to the server.
import { CowriteProvider } from 'cowrite-client';
import { Awareness } from 'y-protocols/awareness';
import * as Y from 'yjs';

import { cleanupAll, type Cleanup } from './dom.ts';
import { awarenessUser, me, onMeChange } from './person.ts';
import { serverUrl } from './place.ts';
import { token } from './token.ts';

/** Why the server ended or refused the session. */
export interface Closed {
  readonly reason: string;
  readonly message: string;
  readonly permanent: boolean;
}

/** What the page shows about the session. */
export interface SessionView {
  readonly status: CowriteProvider['status'];
  readonly state: CowriteProvider['state'];
  readonly access: CowriteProvider['access'];
  readonly synced: boolean;
  /** The person chose to work offline. */
  readonly paused: boolean;
  /** The latest refusal, until the session is connected again. */
  readonly closed: Closed | null;
  /** The document was here in full at some time: what is shown is more than an empty page. */
  readonly everSynced: boolean;
  /** All of a copy with another history, which could not be merged, as one Yjs v1 update. */
  readonly fork: Uint8Array | null;
  /** Why the server did not take an edit that waits. */
  readonly refused: string | null;
  /** This browser cannot keep a copy. */
  readonly unkept: boolean;
}

/** Where a copy goes that is opened as a new document. */
const copies = new Map<string, Uint8Array>();

/** Lets the next session of `document` begin with `update`. */
export function beginWith(document: string, update: Uint8Array): void {
  copies.set(document, update);
}

/** A document that is open in this page. */
export class DocumentSession {
  readonly doc = new Y.Doc();
  readonly awareness = new Awareness(this.doc);

  readonly #listeners = new Set<() => void>();
  readonly #cleanups: Cleanup[] = [];
  readonly #provider: CowriteProvider;
  #paused = false;
  #closed: Closed | null = null;
  #everSynced = false;
  #fork: Uint8Array | null = null;
  #refused: string | null = null;
  #unkept = false;

  constructor(document: string) {
    this.awareness.setLocalStateField('user', awarenessUser(me()));
    this.#cleanups.push(
      onMeChange((person) => this.awareness.setLocalStateField('user', awarenessUser(person))),
    );
    this.#provider = this.#open(document);
    const copy = copies.get(document);
    if (copy) Y.applyUpdate(this.doc, copy);
    copies.delete(document);
  }

  view(): SessionView {
    const { status, state, access, synced } = this.#provider;
    return {
      status,
      state,
      access,
      synced,
      paused: this.#paused,
      closed: this.#closed,
      everSynced: this.#everSynced,
      fork: this.#fork,
      refused: this.#refused,
      unkept: this.#unkept,
    };
  }

  onChange(listener: () => void): Cleanup {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Disconnects until it is called with `false`. Editing goes on. */
  setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#provider.disconnect();
    else this.#provider.connect();
    this.#tell();
  }

  /** Tries again after a refusal, with the token that is kept now. */
  retry(): void {
    this.#closed = null;
    this.#paused = false;
    this.#provider.connect();
    this.#tell();
  }

  destroy(): void {
    cleanupAll(this.#cleanups);
    this.#listeners.clear();
    this.#provider.destroy();
    this.awareness.destroy();
    this.doc.destroy();
  }

  #open(document: string): CowriteProvider {
    const provider = new CowriteProvider(this.doc, {
      url: serverUrl(),
      document,
      awareness: this.awareness,
      persistence: 'indexeddb',
      token: () => token() ?? '',
    });
    const tell = () => this.#tell();
    provider.on('status', ({ status }) => {
      if (status === 'connected') this.#closed = null;
      tell();
    });
    provider.on('synced', (synced) => {
      this.#everSynced ||= synced;
      tell();
    });
    provider.on('saved', (state) => {
      if (state === 'saved') this.#refused = null;
      tell();
    });
    provider.on('error', ({ code, reason }) => {
      if (code === 'not-saved') this.#refused = reason;
      if (code === 'persistence') this.#unkept = true;
      tell();
    });
    provider.on('access', tell);
    provider.on('closed', (closed) => {
      this.#closed = closed;
      tell();
    });
    provider.on('fork', ({ update }) => {
      this.#fork = update;
      tell();
    });
    return provider;
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
