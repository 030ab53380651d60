// The copy on this device, through the provider, on an IndexedDB in memory. A reload is a provider
// that is destroyed and another one with a new document.
import { Code } from '@connectrpc/connect';
import 'fake-indexeddb/auto';
import { IDBFactory, IDBObjectStore } from 'fake-indexeddb';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import * as Y from 'yjs';
import { FakeTransport, docWith, status } from '../test/fake-transport.js';
import {
  type CowriteError,
  type CowriteOptions,
  CowriteProvider,
  type ForkEvent,
  deleteKept,
  listKept,
  readKept,
} from './index.js';
import { localCopyName } from './persistence.js';

const URL = 'http://test';

let transport: FakeTransport;
let providers: CowriteProvider[] = [];

beforeEach(() => {
  vi.stubGlobal('indexedDB', new IDBFactory());
  transport = new FakeTransport();
});

afterEach(() => {
  for (const provider of providers) provider.destroy();
  providers = [];
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

function open(options: Partial<CowriteOptions> = {}, doc = new Y.Doc()): CowriteProvider {
  const provider = new CowriteProvider(doc, { url: URL, document: 'd', transport, ...options });
  providers.push(provider);
  return provider;
}

function type(provider: CowriteProvider, text: string): void {
  const content = provider.doc.getText('content');
  content.insert(content.length, text);
}

function read(doc: Y.Doc): string {
  return doc.getText('content').toString();
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = Date.now() + 8_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within 8 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Waits for the next session of `provider` and lets it in. */
async function join(provider: CowriteProvider, server: Y.Doc, count: number): Promise<void> {
  await until('a session', () => transport.sessions.length === count);
  transport.session.joined(server, { syncSequence: 1n });
  transport.session.sync(server);
  await provider.whenSynced();
}

async function rows(): Promise<number> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(localCopyName(URL, 'd'), 1);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const counting = opening.result.transaction('updates').objectStore('updates').count();
      counting.onsuccess = () => {
        opening.result.close();
        resolve(counting.result);
      };
    };
  });
}

it('pitfall 3: edits made without a session survive a reload and are sent', async () => {
  const before = open({ connect: false });
  type(before, 'typed on a train');
  expect(before.state).toBe('not-saved');
  await until('it is kept', () => before.state === 'offline-kept');
  before.destroy();
  const after = open();
  await until('a session', () => transport.sessions.length === 1);
  expect([read(after.doc), after.state]).toEqual(['typed on a train', 'offline-kept']);
  await join(after, new Y.Doc(), 1);
  await until('it is sent', () => transport.session.updates.length === 1);
  expect(after.state).toBe('saving');
  const server = new Y.Doc();
  Y.applyUpdate(server, transport.session.updates[0]?.update ?? new Uint8Array());
  expect(read(server)).toBe('typed on a train');
  transport.session.ack(transport.session.updates[0]?.id ?? 0n, 2n);
  await after.whenSaved();
});

it('pitfall 3: a deletion made without a session survives a reload and is sent', async () => {
  const server = docWith('keep this, not that');
  const before = open();
  await join(before, server, 1);
  before.disconnect();
  before.doc.getText('content').delete(9, 10);
  await until('it is kept', () => before.state === 'offline-kept');
  before.destroy();
  const after = open();
  await join(after, server, 2);
  await until('it is sent', () => transport.session.updates.length === 1);
  Y.applyUpdate(server, transport.session.updates[0]?.update ?? new Uint8Array());
  expect(read(server)).toBe('keep this');
});

it('what the server has is not sent again after a reload', async () => {
  const server = docWith('keep this, not that');
  const before = open();
  await join(before, server, 1);
  // A deletion is in every difference, so that one that is sent needlessly shows.
  before.doc.getText('content').delete(9, 10);
  await until('it is sent', () => transport.session.updates.length === 1);
  Y.applyUpdate(server, transport.session.updates[0]?.update ?? new Uint8Array());
  transport.session.ack(1n, 2n);
  await before.whenSaved();
  // The mark goes with a write of its own.
  await new Promise((resolve) => setTimeout(resolve, 50));
  before.destroy();
  const after = open();
  await join(after, server, 2);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([read(after.doc), after.state]).toEqual(['keep this', 'saved']);
  expect(transport.session.updates).toEqual([]);
});

it('pitfall 5: storage that is full is told, "not saved" is shown, and it heals by itself', async () => {
  const provider = open({ connect: false });
  const errors: CowriteError[] = [];
  provider.on('error', (error) => errors.push(error));
  type(provider, 'a');
  await until('it is kept', () => provider.state === 'offline-kept');
  const full = vi.spyOn(IDBObjectStore.prototype, 'add').mockImplementation(() => {
    throw new DOMException('no room', 'QuotaExceededError');
  });
  type(provider, 'b');
  await until('it is told', () => errors.length > 0);
  expect(provider.state).toBe('not-saved');
  expect(errors).toMatchObject([{ code: 'persistence' }]);
  type(provider, 'c');
  full.mockRestore();
  await until('it is kept after all', () => provider.state === 'offline-kept');
  expect(errors).toHaveLength(1);
  provider.destroy();
  const after = open({ connect: false });
  await until('it is loaded', () => read(after.doc) === 'abc');
});

it('pitfall 5: storage that the browser deletes under the page is made again', async () => {
  const provider = open();
  await join(provider, docWith('there '), 1);
  provider.disconnect();
  type(provider, 'a');
  await until('it is kept', () => provider.state === 'offline-kept');
  const deleted = indexedDB.deleteDatabase(localCopyName(URL, 'd'));
  await new Promise((resolve) => (deleted.onsuccess = resolve));
  type(provider, 'b');
  await until('it is noticed', () => provider.state === 'not-saved');
  await until('it is kept again', () => provider.state === 'offline-kept');
  provider.destroy();
  const after = open({ connect: false });
  await until('it is loaded', () => read(after.doc) === 'there ab');
  expect(after.epoch).toBe(provider.epoch);
});

it('pitfall 5: storage that cannot be opened is told, and the session goes on without', async () => {
  vi.spyOn(indexedDB, 'open').mockImplementation(() => {
    throw new DOMException('private mode', 'InvalidStateError');
  });
  const provider = open();
  const errors: CowriteError[] = [];
  provider.on('error', (error) => errors.push(error));
  await join(provider, docWith('x'), 1);
  expect(errors).toMatchObject([{ code: 'persistence' }]);
  provider.disconnect();
  type(provider, 'a');
  expect(provider.state).toBe('not-saved');
});

it('pitfall 6: the network starts when the local copy has been loaded, and not before', async () => {
  const server = docWith('known');
  const before = open();
  await join(before, server, 1);
  await until('it is written', () => before.epoch !== '');
  await new Promise((resolve) => setTimeout(resolve, 50));
  before.destroy();
  const after = open();
  let loadedFirst: boolean | undefined;
  after.doc.on('update', () => (loadedFirst ??= transport.sessions.length === 1));
  await until('a session', () => transport.sessions.length === 2);
  expect(loadedFirst).toBe(true);
  const { join: sent } = transport.session;
  expect(sent.stateVector).toEqual(Y.encodeStateVector(server));
  expect(sent.epoch).toEqual(new Uint8Array(16).fill(7));
});

it('pitfall 7: two tabs with one copy have ids of their own, and none loses what it keeps', async () => {
  const [left, right] = [open({ connect: false }), open({ connect: false })];
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(left.doc.clientID).not.toBe(right.doc.clientID);
  for (let i = 0; i < 30; i++) {
    type(left, 'l');
    type(right, 'r');
    if (i % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await until('left is kept', () => left.state === 'offline-kept');
  await until('right is kept', () => right.state === 'offline-kept');
  left.destroy();
  right.destroy();
  const after = open({ connect: false });
  await until('all is loaded', () => read(after.doc).length === 60);
  expect([left.doc.clientID, right.doc.clientID]).not.toContain(after.doc.clientID);
});

it.each([
  ['without locks', undefined, true],
  ['with the lock', {}, true],
  ['while another tab has the lock', null, false],
])('many rows become one, and the rows of another tab stay, %s', async (_, lock, compacts) => {
  type Locked = (lock: unknown) => Promise<unknown>;
  const request = (_name: string, _options: object, locked: Locked) => locked(lock);
  vi.stubGlobal('navigator', lock === undefined ? {} : { locks: { request } });
  const [left, right] = [open({ connect: false }), open({ connect: false })];
  type(right, 'right');
  await until('right is kept', () => right.state === 'offline-kept');
  for (let i = 0; i < 450; i++) {
    type(left, 'l');
    await until('it is kept', () => left.state === 'offline-kept');
  }
  expect((await rows()) < 100).toBe(compacts);
  left.destroy();
  right.destroy();
  const after = open({ connect: false });
  await until('all is loaded', () => read(after.doc).length === 455);
});

it('pitfall 2: with another history the copy is kept under a name of its own', async () => {
  const before = open();
  await join(before, docWith('old'), 1);
  const forks: ForkEvent[] = [];
  before.on('fork', (event) => forks.push(event));
  before.disconnect();
  type(before, ' and mine');
  await until('it is kept', () => before.state === 'offline-kept');
  before.connect();
  await until('a session', () => transport.sessions.length === 2);
  transport.session.end(status(Code.FailedPrecondition, 'EPOCH_MISMATCH'));
  await until('the fork is told', () => forks.length === 1);
  const name = forks[0]?.kept ?? '';
  await until('it is kept', () => before.state === 'offline-kept');
  type(before, ', later');
  await until('it is kept', () => before.state === 'offline-kept');
  await new Promise((resolve) => setTimeout(resolve, 50));
  before.destroy();
  expect(await listKept({ url: URL, document: 'd' })).toEqual([name]);
  const kept = new Y.Doc();
  Y.applyUpdate(kept, await readKept(name));
  expect(read(kept)).toBe('old and mine, later');
  const after = open();
  await join(after, docWith('new'), 3);
  expect(read(after.doc)).toBe('new');
  await deleteKept(name);
  expect(await listKept()).toEqual([]);
});

it('pitfall 2: a tab of the old history does not write into the copy of the new one', async () => {
  const [left, right] = [open(), open({ connect: false })];
  await join(left, docWith('old'), 1);
  left.disconnect();
  await new Promise((resolve) => setTimeout(resolve, 50));
  right.destroy();
  const late = open({ connect: false });
  await until('it is loaded', () => read(late.doc) === 'old');
  left.connect();
  await until('a session', () => transport.sessions.length === 2);
  transport.session.end(status(Code.FailedPrecondition, 'EPOCH_MISMATCH'));
  await until('it is refused', () => left.status === 'disconnected');
  await new Promise((resolve) => setTimeout(resolve, 50));
  const fresh = open();
  await until('a session', () => transport.sessions.length === 3);
  transport.session.joined(docWith('new'), { epoch: new Uint8Array(16).fill(9) });
  transport.session.sync(docWith('new'));
  await fresh.whenSynced();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const errors: CowriteError[] = [];
  late.on('error', (error) => errors.push(error));
  type(late, ' late');
  await until('it is told', () => errors.length === 1);
  expect(late.state).toBe('not-saved');
  late.destroy();
  fresh.destroy();
  const after = open({ connect: false });
  await until('it is loaded', () => read(after.doc) === 'new');
});

it('people are asked before they leave only while something is in memory alone', async () => {
  const window = new EventTarget();
  vi.stubGlobal('window', window);
  vi.stubGlobal('document', new EventTarget());
  const asked = () => {
    const event = new Event('beforeunload', { cancelable: true });
    window.dispatchEvent(event);
    return event.defaultPrevented;
  };
  const provider = open({ connect: false });
  expect(asked()).toBe(false);
  type(provider, 'a');
  expect(asked()).toBe(true);
  await until('it is kept', () => provider.state === 'offline-kept');
  expect(asked()).toBe(false);
});
