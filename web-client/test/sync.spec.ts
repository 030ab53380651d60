// The provider against the real server, over real connections, in Node.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as Y from 'yjs';
import {
  type ClosedEvent,
  type CowriteOptions,
  CowriteProvider,
  type ForkEvent,
  listDocuments,
} from '../src/index.js';
import { TestServer, until } from './server.js';

let server: TestServer;
let providers: CowriteProvider[] = [];
/** Each test has a document of its own. */
let document: string;
let tests = 0;

function open(options: Partial<CowriteOptions> = {}): CowriteProvider {
  const provider = new CowriteProvider(new Y.Doc(), { url: server.url, document, ...options });
  providers.push(provider);
  return provider;
}

function text(provider: CowriteProvider): Y.Text {
  return provider.doc.getText('content');
}

function names(provider: CowriteProvider): unknown[] {
  const states = [...(provider.awareness?.getStates().values() ?? [])];
  return states.flatMap((state) => (state['user'] === undefined ? [] : [state['user']])).sort();
}

beforeEach(async () => {
  server = await TestServer.start();
  providers = [];
  document = `test/${++tests}`;
});

afterEach(async () => {
  for (const provider of providers) provider.destroy();
  await server.dispose();
});

describe('a session', () => {
  it('two providers converge, and saved comes after saving', async () => {
    const [alice, bob] = [open(), open()];
    const states: string[] = [];
    alice.on('saved', (state) => states.push(state));
    await Promise.all([alice.whenSynced(), bob.whenSynced()]);
    for (let i = 0; i < 200; i++) {
      text(alice).insert(0, 'a');
      text(bob).insert(text(bob).length, 'b');
      if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all([alice.whenSaved(), bob.whenSaved()]);
    await until('the texts are the same', () => text(alice).length === 400);
    await until('the texts are the same', () => text(bob).length === 400);
    expect(text(alice).toString()).toBe(text(bob).toString());
    expect(states[0]).toBe('saving');
    expect(alice.state).toBe('saved');
    const carol = open();
    await carol.whenSynced();
    expect(text(carol).toString()).toBe(text(alice).toString());
  });

  it('an edit of more bytes than one update may have is saved in parts', async () => {
    const [alice, bob] = [open(), open()];
    await Promise.all([alice.whenSynced(), bob.whenSynced()]);
    const large = 'na\u00efve \u{1F600} '.repeat(300_000);
    text(alice).insert(0, large);
    await alice.whenSaved();
    await until('all of it arrives', () => text(bob).length === large.length);
    expect(text(bob).toString() === large).toBe(true);
  });

  it('a reader sees edits, and its own are not saved', async () => {
    const [writer, reader] = [open(), open({ access: 'read' })];
    await Promise.all([writer.whenSynced(), reader.whenSynced()]);
    expect([writer.access, reader.access]).toEqual(['write', 'read']);
    text(writer).insert(0, 'hello');
    await until('the reader sees it', () => text(reader).toString() === 'hello');
    text(reader).insert(0, 'not for others');
    await expect(reader.whenSaved()).rejects.toMatchObject({ reason: 'WRITE_DENIED' });
    expect(reader.state).toBe('not-saved');
    expect(reader.status).toBe('connected');
    expect(text(writer).toString()).toBe('hello');
  });

  it('what the server refuses for good is not tried again', async () => {
    document = '../etc';
    const provider = open();
    const closed: ClosedEvent[] = [];
    provider.on('closed', (event) => closed.push(event));
    await expect(provider.whenSynced()).rejects.toMatchObject({ reason: 'BAD_DOCUMENT_ID' });
    expect(closed).toMatchObject([{ reason: 'BAD_DOCUMENT_ID', permanent: true }]);
  });

  it('documents are listed', async () => {
    const provider = open();
    await provider.whenSynced();
    text(provider).insert(0, 'x');
    await provider.whenSaved();
    const page = await listDocuments({ url: server.url, pageSize: 10 });
    expect(page.documents).toEqual([{ id: document, sequence: 1n, sessions: 1 }]);
    expect(page.nextPageToken).toBeUndefined();
  });
});

describe('awareness', () => {
  it('appears, changes and vanishes with its session', async () => {
    const [alice, bob] = [open(), open()];
    alice.awareness?.setLocalStateField('user', 'Alice');
    await until('Bob sees Alice', () => names(bob).includes('Alice'));
    alice.awareness?.setLocalStateField('user', 'Alicia');
    await until('Bob sees the change', () => names(bob).includes('Alicia'));
    const changes: { removed: number[] }[] = [];
    bob.awareness?.on('change', (change: { removed: number[] }) => changes.push(change));
    alice.destroy();
    await until('Alice has gone', () => !names(bob).includes('Alicia'));
    expect(changes.at(-1)?.removed).toEqual([alice.doc.clientID]);
  });

  it('is announced again after a crash of the server', async () => {
    const [alice, bob] = [open(), open()];
    alice.awareness?.setLocalStateField('user', 'Alice');
    await until('Bob sees Alice', () => names(bob).includes('Alice'));
    await server.kill();
    await until('nobody is seen without a session', () => !names(bob).includes('Alice'));
    await server.start();
    await until('Bob sees Alice again', () => names(bob).includes('Alice'));
  });
});

describe('a server that goes and comes', () => {
  it('a crash loses nothing, saved or not', async () => {
    const [alice, bob] = [open(), open()];
    await Promise.all([alice.whenSynced(), bob.whenSynced()]);
    let typed = '';
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 100; i++) {
        text(alice).insert(typed.length, String(i % 10));
        typed += String(i % 10);
        if (i === 50) await alice.whenSaved();
      }
      await server.kill();
      text(alice).insert(typed.length, '!');
      typed += '!';
      await server.start();
    }
    await alice.whenSaved();
    await until('Bob has it all', () => text(bob).toString() === typed);
    const late = open();
    await late.whenSynced();
    expect(text(late).toString()).toBe(typed);
  });

  it('a drain is followed by coming back after the delay that the server asks for', async () => {
    const provider = open();
    await provider.whenSynced();
    const closed: ClosedEvent[] = [];
    provider.on('closed', (event) => closed.push(event));
    await server.terminate();
    await until('the session has ended', () => closed.length > 0);
    expect(closed[0]).toMatchObject({ reason: 'DRAINING', permanent: false });
    expect(closed[0]?.retryAfter).toBeGreaterThan(0);
    await server.start();
    await provider.whenSynced();
  });

  it('edits made without a session are merged, deletions too', async () => {
    const [alice, bob] = [open(), open()];
    await Promise.all([alice.whenSynced(), bob.whenSynced()]);
    text(alice).insert(0, 'one two three');
    await alice.whenSaved();
    await until('Bob has it', () => text(bob).length === 13);
    alice.disconnect();
    bob.disconnect();
    text(alice).delete(0, 4);
    text(bob).insert(13, ' four');
    expect(alice.state).toBe('not-saved');
    alice.connect();
    bob.connect();
    await Promise.all([alice.whenSaved(), bob.whenSaved()]);
    await until('both have both', () => text(alice).toString() === 'two three four');
    await until('both have both', () => text(bob).toString() === 'two three four');
  });

  it('a session that comes back soon resumes and gets only what is new', async () => {
    const sent: number[] = [];
    const counting: typeof fetch = async (input, init) => {
      const response = await fetch(input, init);
      if (!String(input).endsWith('/Subscribe') || response.body === null) return response;
      const at = sent.push(0) - 1;
      const counter = new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          sent[at] = (sent[at] ?? 0) + chunk.length;
          controller.enqueue(chunk);
        },
      });
      return new Response(response.body.pipeThrough(counter), response);
    };
    const alice = open();
    const bob = open({ fetch: counting });
    await Promise.all([alice.whenSynced(), bob.whenSynced()]);
    // Deletions are in every difference, and not in what comes after a sequence.
    for (let i = 0; i < 400; i++) text(alice).insert(0, 'xy');
    for (let i = 0; i < 300; i++) text(alice).delete(i, 1);
    await alice.whenSaved();
    await until('Bob has it', () => text(bob).length === 500);
    bob.disconnect();
    text(alice).insert(0, '!');
    await alice.whenSaved();
    bob.connect();
    await bob.whenSynced();
    expect(text(bob).toString()).toBe(text(alice).toString());
    expect(sent).toHaveLength(2);
    expect(sent[1]).toBeLessThan(400);
  });

  it('a document with another history is not merged: the copy becomes a fork', async () => {
    const provider = open();
    const forks: ForkEvent[] = [];
    const closed: ClosedEvent[] = [];
    provider.on('fork', (event) => forks.push(event));
    provider.on('closed', (event) => closed.push(event));
    await provider.whenSynced();
    text(provider).insert(0, 'the old history');
    await provider.whenSaved();
    const { epoch } = provider;
    expect(epoch).toMatch(/^[0-9a-f]{32}$/);
    await server.kill();
    server.deleteData();
    await server.start();
    const other = open();
    await other.whenSynced();
    text(other).insert(0, 'the new history');
    await other.whenSaved();
    await until('the fork is told', () => forks.length > 0);
    await until('it is final', () => closed.some((event) => event.permanent));
    expect(closed.at(-1)).toMatchObject({ reason: 'EPOCH_MISMATCH', permanent: true });
    expect(forks).toMatchObject([{ epoch, kept: undefined }]);
    const kept = new Y.Doc();
    Y.applyUpdate(kept, forks[0]?.update ?? new Uint8Array());
    expect(kept.getText('content').toString()).toBe('the old history');
    expect(text(provider).toString()).toBe('the old history');
    expect(text(other).toString()).toBe('the new history');
  });
});
