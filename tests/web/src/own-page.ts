// What runs in a page of our own client: one document, driven by own-tab.ts. Bundled by esbuild.

import { type CowriteOptions, CowriteProvider } from 'cowrite-client';
import * as Y from 'yjs';

/** The root that the commands of `cowrite` type into. */
const ROOT = 'content';

/** How a page comes in. Plain data. */
export interface OwnOptions {
  readonly document: string;
  /** The name that others see. */
  readonly user?: string;
  /** `false`: nothing is kept in the browser. */
  readonly persistence?: false;
  /** `false`: nobody sees who is here, and nothing is sent until somebody types. */
  readonly awareness?: false;
  /** The client id of the document. */
  readonly clientId?: number;
}

/** Something that the provider told. */
export interface Told {
  readonly event: string;
  readonly value: unknown;
  /** Since the page began, in milliseconds. */
  readonly at: number;
}

let doc = new Y.Doc();
let provider: CowriteProvider | undefined;
let typing: ReturnType<typeof setInterval> | undefined;
let typed = 0;
let claimed = '';
const told: Told[] = [];

const text = (): Y.Text => doc.getText(ROOT);

function here(): CowriteProvider {
  if (provider === undefined) throw new Error('no document is open');
  return provider;
}

/** State vector entry of a client. */
function clockOf(client: number): number {
  return Y.getState(doc.store, client);
}

/** Resolves when the document has everything of a client up to a clock. */
function reached(client: number, clock: number): Promise<void> {
  return new Promise((done) => {
    const look = (): void => {
      if (clockOf(client) < clock) return;
      doc.off('update', look);
      done();
    };
    doc.on('update', look);
  });
}

/** An edit of a recording. */
export interface Typed {
  /** Yjs v1, in base64. */
  readonly update: string;
  /** What the author had seen of the other: the clock after its last edit. */
  readonly seen: { readonly client: number; readonly clock: number };
}

const own = {
  open(options: OwnOptions): void {
    if (options.clientId !== undefined) doc.clientID = options.clientId;
    const more: Partial<CowriteOptions> = {
      ...(options.persistence === false ? { persistence: false } : {}),
      ...(options.awareness === false ? { awareness: null } : {}),
    };
    const opened = new CowriteProvider(doc, {
      url: location.origin,
      document: options.document,
      connect: false,
      ...more,
    });
    provider = opened;
    const tell = (event: string, value: unknown): void => {
      told.push({ event, value, at: performance.now() });
    };
    opened.on('status', ({ status }) => tell('status', status));
    opened.on('synced', (synced) => tell('synced', synced));
    opened.on('closed', (closed) => tell('closed', closed));
    opened.on('error', ({ code, message }) => tell('error', `${code}: ${message}`));
    opened.on('saved', (state) => {
      tell('saved', state);
      if (state === 'saved') claimed = text().toString();
    });
    if (options.user !== undefined) {
      opened.awareness?.setLocalState({ user: { name: options.user } });
    }
    opened.connect();
  },
  /** What the provider told since the page began. */
  told: (): readonly Told[] => told,
  text: (): string => text().toString(),
  type(what: string, at = text().length): void {
    text().insert(at, what);
  },
  erase(at: number, length: number): void {
    text().delete(at, length);
  },
  status: (): string => here().status,
  state: (): string => here().state,
  synced: (): boolean => here().synced,
  unsavedEdits: (): number => here().unsavedEdits,
  connect: (): void => here().connect(),
  disconnect: (): void => here().disconnect(),
  destroy(): void {
    here().destroy();
    doc.destroy();
    doc = new Y.Doc();
  },
  users: (): string[] =>
    [...(here().awareness?.getStates().values() ?? [])]
      .flatMap((state) => (state['user'] === undefined ? [] : [String(state['user'].name)]))
      .sort(),
  /** Types words, each only once, at the end: `<name><number>;`. */
  startTyping(name: string, everyMs: number): void {
    typing = setInterval(() => {
      typed += 1;
      own.type(`${name}${typed};`);
    }, everyMs);
  },
  /** Returns how many words were typed by this page. */
  stopTyping(): number {
    clearInterval(typing);
    return typed;
  },
  /** Types `perSecond` characters a second for a while, and returns how many were typed. */
  async hammer(perSecond: number, ms: number): Promise<number> {
    const began = performance.now();
    let count = 0;
    for (let now = began; now - began < ms; now = performance.now()) {
      const due = Math.floor(((now - began) / 1000) * perSecond);
      for (; count < due; count += 1) own.type('x');
      await new Promise((done) => setTimeout(done, Math.min(4, 1000 / perSecond)));
    }
    return count;
  },
  /** The text when it was last said to be saved. */
  claimed: (): string => claimed,
  /** Types what was recorded, each edit as soon as the other's edits before it are here. */
  async replay(edits: readonly Typed[]): Promise<void> {
    for (const { update, seen } of edits) {
      if (clockOf(seen.client) < seen.clock) await reached(seen.client, seen.clock);
      Y.applyUpdate(doc, Uint8Array.fromBase64(update), 'typed');
    }
  },
};

export type Own = typeof own;

declare global {
  interface Uint8ArrayConstructor {
    fromBase64(text: string): Uint8Array<ArrayBuffer>;
  }
}

Object.assign(globalThis, { own });
