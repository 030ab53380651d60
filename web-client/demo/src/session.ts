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
}

/** Where a copy goes that is opened as a new document. */
const copies = new Map<string, Uint8Array>();

/** Lets the next session of `document` begin with `update`. */
export function beginWith(document: string, update: Uint8Array): void {
  copies.set(document, update);
}

/** The document and the awareness outlive a provider, so that a new token does not disturb the editor. */
export class DocumentSession {
  readonly doc = new Y.Doc();
  readonly awareness = new Awareness(this.doc);

  readonly #document: string;
  readonly #listeners = new Set<() => void>();
  readonly #cleanups: Cleanup[] = [];
  #provider: CowriteProvider;
  #paused = false;
  #closed: Closed | null = null;
  #everSynced = false;
  #fork: Uint8Array | null = null;

  constructor(document: string) {
    this.#document = document;
    this.awareness.setLocalStateField('user', awarenessUser(me()));
    this.#cleanups.push(
      onMeChange((person) => this.awareness.setLocalStateField('user', awarenessUser(person))),
    );
    this.#provider = this.#open();
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
    };
  }

  onChange(listener: () => void): Cleanup {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Disconnects until `goOnline`, or connects again. Editing goes on. */
  setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#provider.disconnect();
    else this.#provider.connect();
    this.#tell();
  }

  /** Tries again at once, with the token that is kept now. */
  reopen(): void {
    this.#provider.destroy();
    this.#closed = null;
    this.#paused = false;
    this.#provider = this.#open();
    this.#tell();
  }

  destroy(): void {
    cleanupAll(this.#cleanups);
    this.#listeners.clear();
    this.#provider.destroy();
    this.awareness.destroy();
    this.doc.destroy();
  }

  #open(): CowriteProvider {
    const given = token();
    const provider = new CowriteProvider(this.doc, {
      url: serverUrl(),
      document: this.#document,
      awareness: this.awareness,
      persistence: 'indexeddb',
      ...(given === undefined ? {} : { token: given }),
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
    provider.on('saved', tell);
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
