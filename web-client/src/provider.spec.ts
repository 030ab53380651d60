// The provider against a server that is played by hand, on fake time. Tests named "pitfall N" each
// keep one of the mistakes away that clients of this kind are known for:
//
//  1 content doubled by two initialisations     11 cursors of those who are gone
//  2 content doubled by another history         12 clocks that disagree
//  3 edits lost by a reload without a network   13 all coming back at once
//  4 "synced" while nothing arrives             14 trying again what cannot succeed
//  5 local storage that fails                   15 connect twice, destroy once
//  6 network before local storage               16 a proxy that holds back the stream
//  7 two tabs with one client id                17 a queue replayed in another order
//  8 timers once a minute in the background     18 undo of other people's edits
//  9 sleep and wake                             19 away for months
// 10 the back-forward cache                     20 bytes that break the tab
//
// 3, 5, 6 and 7 are about local storage and are in persistence.spec.ts, 13 is in backoff.spec.ts too.
// Of 1, what an application inserts into an empty document is its own affair: it waits for `synced`.
// Of 20, whether valid bytes can be harmful is the server's affair: it checks before it passes on.
import { Code } from '@connectrpc/connect';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as Y from 'yjs';
import { FakeTransport, docWith, networkError, status } from '../test/fake-transport.js';
import { Access, AccessChangedSchema } from './gen/cowrite/v1/collaboration_pb.js';
import { ErrorReason } from './gen/cowrite/v1/error_pb.js';
import { create } from '@bufbuild/protobuf';
import { type ClosedEvent, type CowriteOptions, CowriteProvider, type ForkEvent } from './index.js';
import type { UpFrame } from './transport.js';

// y-protocols takes hold of Date.now when it is loaded: what it holds has to know of fake time.
vi.hoisted(() => {
  const { Date: real } = globalThis;
  const now = real.now.bind(real);
  real.now = () => (globalThis.Date === real ? now() : globalThis.Date.now());
});

let transport: FakeTransport;
let providers: CowriteProvider[] = [];

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'],
  });
  transport = new FakeTransport();
});

afterEach(() => {
  for (const provider of providers) provider.destroy();
  providers = [];
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function open(options: Partial<CowriteOptions> = {}, doc = new Y.Doc()): CowriteProvider {
  const provider = new CowriteProvider(doc, {
    url: 'http://test',
    document: 'd',
    transport,
    ...options,
  });
  providers.push(provider);
  return provider;
}

/** Lets everything happen that needs no time. */
async function settle(milliseconds = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

/** A provider in a session that is in sync with `doc`. */
async function synced(
  options: Partial<CowriteOptions> = {},
  doc = new Y.Doc(),
): Promise<CowriteProvider> {
  const provider = open(options);
  await settle();
  transport.session.joined(doc, { syncSequence: 1n });
  transport.session.sync(doc);
  await settle();
  expect(provider.synced).toBe(true);
  return provider;
}

function type(provider: CowriteProvider, text: string): void {
  const content = provider.doc.getText('content');
  content.insert(content.length, text);
}

function read(doc: Y.Doc): string {
  return doc.getText('content').toString();
}

/** The text of `doc` after the updates of the latest session, which have to be complete. */
function afterUpdates(doc: Y.Doc): string {
  for (const { update } of transport.session.updates) Y.applyUpdate(doc, update);
  expect(doc.store.pendingStructs).toBeNull();
  expect(doc.store.pendingDs).toBeNull();
  return read(doc);
}

function closedEvents(provider: CowriteProvider): ClosedEvent[] {
  const events: ClosedEvent[] = [];
  provider.on('closed', (event) => events.push(event));
  return events;
}

const cases = (frames: readonly UpFrame[]) => frames.map((frame) => frame.case);

describe('a session', () => {
  it('sends edits one message at a time, what is typed meanwhile in the next', async () => {
    const provider = await synced({ awareness: null });
    const { session } = transport;
    session.answering = false;
    type(provider, 'a');
    await settle();
    for (const letter of 'bcdef') type(provider, letter);
    await settle();
    expect(session.published).toHaveLength(1);
    session.answer();
    await settle();
    expect(session.published).toHaveLength(2);
    expect(session.updates.map(({ id }) => id)).toEqual([1n, 2n]);
    expect(afterUpdates(new Y.Doc())).toBe('abcdef');
  });

  it('is saving until the acknowledgement of the last edit, and then saved', async () => {
    const provider = await synced();
    type(provider, 'a');
    await settle();
    type(provider, 'b');
    await settle();
    expect([provider.state, provider.unsavedEdits]).toEqual(['saving', 2]);
    transport.session.ack(1n, 2n);
    await settle();
    expect([provider.state, provider.unsavedEdits]).toEqual(['saving', 1]);
    transport.session.ack(2n, 3n);
    await provider.whenSaved();
    expect([provider.state, provider.unackedFor]).toEqual(['saved', 0]);
  });

  it('goes on after a refusal, shows it, and tries again when the server says so', async () => {
    const provider = await synced();
    type(provider, 'a');
    await settle();
    transport.session.refuse(1n, ErrorReason.LOG_FULL, 5);
    await settle();
    expect(provider.state).toBe('not-saved');
    expect(provider.refusal?.reason).toBe('LOG_FULL');
    type(provider, 'b');
    await settle(4_900);
    expect(transport.session.updates).toHaveLength(1);
    await settle(200);
    expect(transport.session.updates).toHaveLength(2);
    expect(provider.state).toBe('not-saved');
    const server = new Y.Doc();
    const again = transport.session.updates[1];
    Y.applyUpdate(server, again?.update ?? new Uint8Array());
    expect(read(server)).toBe('ab');
    transport.session.ack(2n, 2n);
    await settle();
    expect(provider.state).toBe('saved');
    expect(transport.sessions).toHaveLength(1);
  });

  it('resumes by epoch and sequence, and is in sync when it has caught up', async () => {
    const server = docWith('one');
    const provider = await synced({}, server);
    transport.session.end(networkError());
    await settle(300);
    const { session } = transport;
    expect(session.join).toMatchObject({ resumeSequence: 1n, epoch: new Uint8Array(16).fill(7) });
    session.joined(server, { resumed: true, syncSequence: 2n });
    await settle();
    expect(provider.synced).toBe(false);
    const before = Y.encodeStateVector(server);
    server.getText('content').insert(3, ' two');
    session.update(Y.encodeStateAsUpdate(server, before), 2n);
    await settle();
    expect(provider.synced).toBe(true);
    expect(read(provider.doc)).toBe('one two');
  });

  it('with a gap asks for the difference instead of resuming', async () => {
    const server = docWith('one');
    const provider = await synced({}, server);
    server.getText('content').insert(3, ' two');
    const between = Y.encodeStateVector(server);
    server.getText('content').insert(7, ' three');
    transport.session.update(Y.encodeStateAsUpdate(server, between), 3n);
    await settle(300);
    expect(transport.sessions).toHaveLength(2);
    expect(transport.session.join.resumeSequence).toBe(0n);
    transport.session.joined(server, { syncSequence: 3n });
    transport.session.sync(server, 3n);
    await settle();
    expect(read(provider.doc)).toBe('one two three');
  });

  it('an acknowledgement during the initial state does not count as having that', async () => {
    const server = docWith('one');
    const provider = open();
    type(provider, 'x');
    await settle();
    transport.session.joined(server, { syncSequence: 5n });
    transport.session.syncChunk(Y.encodeStateAsUpdate(server).slice(0, 4), false, 5n);
    await settle();
    transport.session.ack(1n, 6n);
    await settle();
    transport.session.end(networkError());
    await settle(300);
    expect(transport.session.join.resumeSequence).toBe(0n);
  });

  it('may lose and get back the right to write', async () => {
    const provider = await synced();
    const access = (to: Access) =>
      transport.session.send({
        case: 'accessChanged',
        value: create(AccessChangedSchema, { access: to }),
      });
    access(Access.READ);
    await settle();
    type(provider, 'a');
    await settle();
    expect([provider.access, provider.state]).toEqual(['read', 'not-saved']);
    expect(transport.session.updates).toEqual([]);
    access(Access.WRITE);
    await settle();
    expect([provider.access, provider.state]).toEqual(['write', 'saving']);
    expect(afterUpdates(new Y.Doc())).toBe('a');
  });

  it('who may comment sends what is written, for the server to tell what is a comment', async () => {
    const provider = await synced();
    transport.session.send({
      case: 'accessChanged',
      value: create(AccessChangedSchema, { access: Access.COMMENT }),
    });
    await settle();
    type(provider, 'a');
    await settle();
    expect([provider.access, provider.state]).toEqual(['comment', 'saving']);
    expect(afterUpdates(new Y.Doc())).toBe('a');
  });

  it('a page without local storage says "not saved" when it has had no session for 8 s', async () => {
    const provider = await synced();
    transport.session.end(networkError());
    await settle();
    type(provider, 'a');
    expect(provider.state).toBe('saving');
    await settle(8_100);
    expect(provider.state).toBe('not-saved');
  });

  it('an application that throws when it is told of something does not end it', async () => {
    const thrown: unknown[] = [];
    vi.stubGlobal('queueMicrotask', (task: () => void) => {
      void Promise.resolve()
        .then(task)
        .catch((error: unknown) => thrown.push(error));
    });
    const provider = open();
    provider.on('synced', () => {
      throw new Error('in synced');
    });
    provider.doc.on('afterTransaction', () => {
      throw new Error('in an observer');
    });
    provider.awareness?.on('change', () => {
      throw new Error('in awareness');
    });
    const closed = closedEvents(provider);
    await settle();
    const server = docWith('one');
    transport.session.joined(server, { syncSequence: 1n });
    transport.session.sync(server);
    transport.session.awareness(11, 1n, '{}');
    await settle();
    expect(thrown.map(String)).toEqual([
      'Error: in an observer',
      'Error: in synced',
      'Error: in awareness',
    ]);
    expect([closed, provider.synced, read(provider.doc)]).toEqual([[], true, 'one']);
  });

  it('the token is asked for with each join and before it expires', async () => {
    let fetched = 0;
    // Issued by a clock that is a day behind: only its lifetime of 100 s counts.
    const iat = Date.now() / 1000 - 86_400;
    const claims = btoa(JSON.stringify({ iat, exp: iat + 100 }));
    const provider = await synced({ token: () => `h.${claims}.${++fetched}`, awareness: null });
    expect(transport.session.join.token).toBe(`h.${claims}.1`);
    await settle(79_000);
    expect(transport.session.frames).not.toContainEqual(
      expect.objectContaining({ case: 'refreshToken' }),
    );
    await settle(2_000);
    expect(transport.session.frames).toContainEqual({
      case: 'refreshToken',
      value: { token: `h.${claims}.2` },
    });
    transport.session.end(networkError());
    await settle(300);
    expect(transport.session.join.token).toBe(`h.${claims}.3`);
    expect(provider.status).toBe('connecting');
  });

  it('a token that takes its time is not blamed on the server', async () => {
    const wait = () => new Promise<string>((resolve) => setTimeout(() => resolve('slow'), 20_000));
    const provider = open({ token: wait });
    const closed = closedEvents(provider);
    await settle(20_000);
    expect([closed, transport.session.join.token]).toEqual([[], 'slow']);
    await settle(10_100);
    expect(closed[0]?.message).toMatch(/six connections/);
  });

  it('a token function that fails is told and asked again', async () => {
    let calls = 0;
    const provider = open({
      token: () => {
        if (++calls === 1) throw new Error('no login');
        return 'good';
      },
    });
    const errors: string[] = [];
    provider.on('error', (error) => errors.push(error.message));
    await settle(300);
    expect(errors).toEqual(['the token function failed: Error: no login']);
    expect(transport.session.join.token).toBe('good');
  });
});

describe('pitfalls', () => {
  it('pitfall 1: nothing counts as synced before all of the server state is here', async () => {
    const server = docWith('the template');
    const provider = open();
    const events: boolean[] = [];
    provider.on('synced', (now) => events.push(now));
    await settle();
    transport.session.joined(server, { syncSequence: 1n });
    const state = Y.encodeStateAsUpdate(server);
    transport.session.syncChunk(state.slice(0, 5), false);
    await settle();
    expect([provider.status, provider.synced, read(provider.doc)]).toEqual([
      'connected',
      false,
      '',
    ]);
    transport.session.syncChunk(state.slice(5), true);
    await settle();
    expect([events, read(provider.doc)]).toEqual([[true], 'the template']);
  });

  it.each([
    ['in the refusal of the server', true],
    ['in Joined', false],
  ])('pitfall 2: another history, %s, is never merged', async (_, byStatus) => {
    const provider = await synced({}, docWith('old'));
    const [forks, closed] = [[] as ForkEvent[], closedEvents(provider)];
    provider.on('fork', (event) => forks.push(event));
    transport.session.end(networkError());
    await settle(300);
    const { session } = transport;
    if (byStatus) session.end(status(Code.FailedPrecondition, 'EPOCH_MISMATCH'));
    else session.joined(docWith('new'), { epoch: new Uint8Array(16).fill(8) });
    await settle(60_000);
    expect(read(provider.doc)).toBe('old');
    expect(session.published).toEqual([]);
    expect(forks).toMatchObject([{ epoch: '07'.repeat(16), kept: undefined }]);
    expect(closed.at(-1)).toMatchObject({ reason: 'EPOCH_MISMATCH', permanent: true });
    expect(provider.state).toBe('not-saved');
    await expect(provider.whenSaved()).rejects.toMatchObject({ code: 'epoch' });
    provider.connect();
    await settle(60_000);
    expect(transport.sessions).toHaveLength(2);
  });

  it('pitfall 4: edits that are taken and never acknowledged are not saved', async () => {
    const provider = await synced({ awareness: null });
    const closed = closedEvents(provider);
    type(provider, 'a');
    await settle(29_000);
    expect([provider.state, provider.synced]).toEqual(['saving', true]);
    expect(provider.unackedFor).toBe(29_000);
    await settle(2_000);
    expect(closed).toMatchObject([{ permanent: false }]);
    expect(provider.state).not.toBe('saved');
    transport.session.joined(new Y.Doc());
    await settle(300);
    expect(afterUpdates(new Y.Doc())).toBe('a');
  });

  it('pitfall 8: a ping is answered without any timer', async () => {
    const provider = await synced({ awareness: null });
    transport.session.ping(42n);
    // Only promises move on here.
    for (let i = 0; i < 20; i++) await Promise.resolve();
    expect(transport.session.frames).toEqual([{ case: 'pong', value: { nonce: 42n } }]);
    expect(provider.status).toBe('connected');
  });

  it('pitfall 8: timers that run once a minute do not end a session', async () => {
    await synced({ awareness: null });
    for (let minute = 1; minute <= 10; minute++) {
      // The page's timers come a minute late, what the server sends does not.
      vi.setSystemTime(Date.now() + 60_000);
      transport.session.ping(BigInt(minute));
      await settle(5_000);
    }
    expect(transport.sessions).toHaveLength(1);
    const pongs = transport.session.frames.filter(({ case: kind }) => kind === 'pong');
    expect(pongs.length).toBeGreaterThanOrEqual(10);
  });

  it('pitfall 9: after sleep a dead connection is found within 3 s and replaced at once', async () => {
    const provider = await synced({ awareness: null });
    const { session } = transport;
    session.answering = false;
    vi.setSystemTime(Date.now() + 3_600_000);
    await settle(5_000);
    expect(cases(session.frames)).toEqual(['pong']);
    await settle(2_900);
    expect(transport.sessions).toHaveLength(1);
    await settle(200);
    expect([transport.sessions.length, session.aborted, provider.status]).toEqual([
      2,
      true,
      'connecting',
    ]);
  });

  it('pitfall 9: after sleep a connection that lives is kept', async () => {
    const provider = await synced({ awareness: null });
    vi.setSystemTime(Date.now() + 3_600_000);
    await settle(20_000);
    expect(cases(transport.session.frames)).toEqual(['pong']);
    expect([transport.sessions.length, provider.status]).toEqual([1, 'connected']);
  });

  it('pitfall 9: a stream that has gone silent is asked, and left when nothing answers', async () => {
    await synced({ awareness: null });
    const { session } = transport;
    session.answering = false;
    await settle(34_000);
    expect(session.frames).toEqual([]);
    await settle(5_000);
    expect(transport.sessions).toHaveLength(2);
  });

  it('pitfall 9: a network that comes back ends the waiting, but not what the server asked for', async () => {
    const window = new EventTarget();
    vi.stubGlobal('window', window);
    vi.stubGlobal('document', new EventTarget());
    vi.spyOn(Math, 'random').mockReturnValue(1);
    await synced();
    for (let loss = 0; loss < 8; loss++) {
      transport.session.end(networkError());
      await settle();
      window.dispatchEvent(new Event('online'));
      await settle();
      expect(transport.sessions).toHaveLength(loss + 2);
    }
    transport.session.end(status(Code.Unavailable, 'DRAINING', 4));
    await settle();
    window.dispatchEvent(new Event('online'));
    await settle(3_900);
    expect(transport.sessions).toHaveLength(9);
    vi.mocked(Math.random).mockRestore();
  });

  it('pitfall 10: a page that goes says goodbye, and announces itself when it comes back', async () => {
    const window = new EventTarget();
    vi.stubGlobal('window', window);
    vi.stubGlobal('document', new EventTarget());
    const provider = await synced();
    provider.awareness?.setLocalStateField('user', 'Ada');
    await settle();
    transport.session.answering = false;
    type(provider, 'a');
    await settle();
    window.dispatchEvent(new Event('pagehide'));
    const [last] = transport.session.keepalive;
    expect(cases(last ?? [])).toEqual(['update', 'leave']);
    expect(provider.status).toBe('disconnected');
    await settle(60_000);
    expect(transport.sessions).toHaveLength(1);
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    await settle();
    transport.session.joined(new Y.Doc());
    await settle();
    const state = transport.session.frames.find((frame) => frame.case === 'awareness');
    const bytes = state?.case === 'awareness' ? state.value.state : undefined;
    expect(new TextDecoder().decode(bytes)).toBe('{"user":"Ada"}');
    expect(afterUpdates(new Y.Doc())).toBe('a');
  });

  it('pitfall 11: whoever is gone is not seen, whoever is here stays', async () => {
    const provider = await synced();
    const states = () => [...(provider.awareness?.getStates().keys() ?? [])];
    const added: number[] = [];
    provider.awareness?.on('change', (change: { added: number[] }) => added.push(...change.added));
    transport.session.awareness(11, 1_700_000_000n, '{"user":"A"}');
    transport.session.awareness(22, 1_700_000_001n, '{"user":"B"}');
    await settle();
    expect(states()).toEqual([provider.doc.clientID, 11, 22]);
    // y-protocols would drop them after 30 s.
    for (let i = 0; i < 30; i++) {
      transport.session.ping(1n);
      await settle(5_000);
    }
    expect(states()).toEqual([provider.doc.clientID, 11, 22]);
    transport.session.awareness(11, 1_700_000_002n, '');
    await settle();
    expect(states()).toEqual([provider.doc.clientID, 22]);
    transport.session.end(networkError());
    await settle();
    expect(states()).toEqual([provider.doc.clientID]);
    await settle(300);
    transport.session.joined(new Y.Doc());
    // A server that lost its memory counts from the start.
    transport.session.awareness(22, 0n, '{"user":"B2"}');
    await settle();
    expect(provider.awareness?.getStates().get(22)).toEqual({ user: 'B2' });
    transport.session.awareness(22, 1n, '{"user":"B3"}');
    transport.session.awareness(22, 0n, '{"user":"late"}');
    await settle();
    expect(provider.awareness?.getStates().get(22)).toEqual({ user: 'B3' });
    expect(added).toEqual([11, 22, 22]);
  });

  it('pitfall 11: a state that did not change is not sent again', async () => {
    const provider = await synced();
    provider.awareness?.setLocalStateField('user', 'Ada');
    await settle();
    const count = () =>
      cases(transport.session.frames).filter((kind) => kind === 'awareness').length;
    const before = count();
    for (let i = 0; i < 12; i++) {
      transport.session.ping(1n);
      await settle(5_000);
    }
    expect(count()).toBe(before);
  });

  it.each([86_400_000, -86_400_000])(
    'pitfall 12: a clock that jumps by %d ms does no harm',
    async (jump) => {
      const provider = await synced({ awareness: null });
      vi.setSystemTime(Date.now() + jump);
      await settle(10_000);
      type(provider, 'a');
      await settle();
      transport.session.ack(1n, 2n);
      await settle(10_000);
      expect([transport.sessions.length, provider.status, provider.state]).toEqual([
        1,
        'connected',
        'saved',
      ]);
    },
  );

  it('pitfall 13: a server that drains is not asked before the time that it gave', async () => {
    const provider = await synced();
    const closed = closedEvents(provider);
    transport.session.closing(ErrorReason.DRAINING, 20);
    transport.session.end(status(Code.Unavailable, 'DRAINING'));
    await settle(19_900);
    expect(closed).toEqual([
      { reason: 'DRAINING', message: 'told so', permanent: false, retryAfter: 20_000 },
    ]);
    expect(transport.sessions).toHaveLength(1);
    await settle(200);
    expect(transport.sessions).toHaveLength(2);
  });

  it('pitfall 13: a server that accepts and drops is asked more and more seldom', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(1);
    await synced();
    for (let i = 0; i < 600; i++) {
      transport.session.joined(new Y.Doc());
      transport.session.end(networkError());
      await settle(100);
    }
    // A minute: 250 ms, 500 ms, 1 s ... 30 s.
    expect(transport.sessions.length).toBeLessThan(10);
    vi.mocked(Math.random).mockRestore();
  });

  it.each([
    [Code.InvalidArgument, 'BAD_DOCUMENT_ID', true],
    [Code.InvalidArgument, 'UNSUPPORTED_PROTOCOL_VERSION', true],
    [Code.InvalidArgument, 'MALFORMED_UPDATE', true],
    [Code.InvalidArgument, 'MALFORMED_FRAME', true],
    [Code.PermissionDenied, 'WRITE_DENIED', true],
    [Code.Unauthenticated, 'UNAUTHENTICATED', true],
    [Code.DataLoss, 'DOCUMENT_CORRUPT', true],
    [Code.FailedPrecondition, 'DOCUMENT_QUARANTINED', true],
    [Code.NotFound, 'DOCUMENT_DELETED', true],
    [Code.Unimplemented, 'UNSPECIFIED', true],
    [Code.NotFound, 'UNKNOWN_SESSION', false],
    [Code.Aborted, 'INCOMPLETE_UPDATE', false],
    [Code.DeadlineExceeded, 'HEARTBEAT_TIMEOUT', false],
    [Code.ResourceExhausted, 'TOO_SLOW', false],
    [Code.ResourceExhausted, 'TOO_MANY_SESSIONS', false],
    [Code.ResourceExhausted, 'BUSY', false],
    [Code.Unavailable, 'LOG_UNAVAILABLE', false],
    [Code.Unavailable, 'ROOM_RESTARTED', false],
    [Code.Unknown, 'UNSPECIFIED', false],
    [Code.Canceled, 'UNSPECIFIED', false],
  ] as const)('pitfall 14: %s %s is final: %s', async (code, reason, permanent) => {
    const provider = open();
    const closed = closedEvents(provider);
    await settle();
    transport.session.end(status(code, reason));
    await settle(300);
    expect(closed).toMatchObject([{ reason, permanent }]);
    await settle(60_000);
    expect(transport.sessions.length > 1).toBe(!permanent);
    if (permanent) await expect(provider.whenSynced()).rejects.toMatchObject({ reason });
  });

  it('pitfall 14: a token that expired under a session is replaced once', async () => {
    const provider = await synced({ token: () => 'fresh' });
    transport.session.end(status(Code.Unauthenticated, 'UNAUTHENTICATED'));
    await settle(300);
    expect(transport.sessions).toHaveLength(2);
    transport.session.end(status(Code.Unauthenticated, 'UNAUTHENTICATED'));
    await settle(60_000);
    expect([transport.sessions.length, provider.status]).toEqual([2, 'disconnected']);
  });

  it('pitfall 14: an edit under way when the right to write was taken is no fault, twice is', async () => {
    const provider = await synced();
    transport.session.end(status(Code.PermissionDenied, 'WRITE_DENIED'));
    await settle(300);
    transport.session.joined(new Y.Doc());
    await settle();
    expect([transport.sessions.length, provider.status]).toEqual([2, 'connected']);
    transport.session.end(status(Code.PermissionDenied, 'WRITE_DENIED'));
    await settle(60_000);
    expect([transport.sessions.length, provider.status]).toEqual([2, 'disconnected']);
  });

  it('pitfall 15: connect twice and destroy once is one session and no more', async () => {
    const provider = open();
    provider.connect();
    provider.connect();
    await settle();
    expect(transport.sessions).toHaveLength(1);
    transport.session.joined(new Y.Doc());
    await settle();
    provider.connect();
    await settle();
    expect(transport.sessions).toHaveLength(1);
    provider.destroy();
    provider.destroy();
    await settle(60_000);
    expect(cases(transport.session.frames).at(-1)).toBe('leave');
    expect([transport.sessions.length, transport.session.aborted]).toEqual([1, true]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('pitfall 15: an application that disconnects when it is told of a loss gets no session', async () => {
    const provider = await synced();
    provider.on('closed', () => provider.disconnect());
    provider.on('status', ({ status }) => status === 'connecting' && provider.disconnect());
    transport.session.end(networkError());
    await settle(60_000);
    expect(transport.sessions).toHaveLength(1);
    provider.connect();
    await settle(60_000);
    expect(transport.sessions.every((session, i) => i === 0 || session.aborted)).toBe(true);
    expect(provider.status).toBe('disconnected');
  });

  it('pitfall 15: an application that disconnects when a probe fails gets no session', async () => {
    const provider = await synced({ awareness: null });
    provider.on('closed', () => provider.disconnect());
    transport.session.answering = false;
    vi.setSystemTime(Date.now() + 3_600_000);
    await settle(60_000);
    expect([transport.sessions.length, provider.status]).toEqual([1, 'disconnected']);
  });

  it('pitfall 16: a stream that brings nothing is given up, and the likely cause named', async () => {
    const provider = open();
    const closed = closedEvents(provider);
    await settle(9_900);
    expect(closed).toEqual([]);
    await settle(200);
    expect(closed).toMatchObject([{ permanent: false }]);
    expect(closed[0]?.message).toMatch(/six connections/);
    expect(transport.sessions[0]?.aborted).toBe(true);
  });

  it('pitfall 17: what was under way at a loss is sent as one difference', async () => {
    const provider = await synced({ awareness: null });
    type(provider, 'a');
    await settle();
    const server = new Y.Doc();
    Y.applyUpdate(server, transport.session.updates[0]?.update ?? new Uint8Array());
    transport.session.ack(1n, 2n);
    await settle();
    transport.session.answering = false;
    for (const letter of 'bcd') {
      type(provider, letter);
      await settle();
    }
    transport.session.end(networkError());
    await settle();
    type(provider, 'e');
    await settle(300);
    transport.session.joined(server, { resumed: true, syncSequence: 2n });
    await settle();
    expect(transport.session.updates).toHaveLength(1);
    expect(afterUpdates(server)).toBe('abcde');
    transport.session.ack(1n, 3n);
    await settle();
    expect(provider.state).toBe('saved');
  });

  it('pitfall 17: an update that the server calls incomplete is followed by the difference', async () => {
    const provider = await synced();
    type(provider, 'a');
    await settle();
    transport.session.end(status(Code.Aborted, 'INCOMPLETE_UPDATE', 0.1));
    await settle(300);
    transport.session.joined(new Y.Doc(), { resumed: true, syncSequence: 1n });
    await settle();
    expect(afterUpdates(new Y.Doc())).toBe('a');
  });

  it('pitfall 18: undo takes back own edits only, also after a reconnect', async () => {
    const server = docWith('theirs ');
    const provider = await synced({}, server);
    const undo = new Y.UndoManager(provider.doc.getText('content'));
    type(provider, 'mine');
    await settle();
    Y.applyUpdate(server, Y.encodeStateAsUpdate(provider.doc));
    transport.session.end(networkError());
    await settle(300);
    server.getText('content').insert(0, 'new, ');
    transport.session.joined(server, { syncSequence: 3n });
    transport.session.sync(server, 3n);
    await settle();
    expect(read(provider.doc)).toBe('new, theirs mine');
    undo.undo();
    expect(read(provider.doc)).toBe('new, theirs ');
    undo.undo();
    expect(read(provider.doc)).toBe('new, theirs ');
  });

  it('pitfall 19: whoever was away for too long to resume gets the difference', async () => {
    const server = docWith('one');
    const provider = await synced({ awareness: null }, server);
    provider.disconnect();
    await settle(90 * 86_400_000);
    server.getText('content').delete(0, 3);
    server.getText('content').insert(0, 'all is new');
    provider.connect();
    await settle();
    transport.session.joined(server, { resumed: false, syncSequence: 9000n });
    transport.session.sync(server, 9000n);
    await settle();
    expect([read(provider.doc), provider.synced]).toEqual(['all is new', true]);
  });

  it('pitfall 20: bytes that are no update end the session for good and break nothing', async () => {
    const provider = await synced({}, docWith('intact'));
    const closed = closedEvents(provider);
    transport.session.awareness(11, 1n, '{"user":');
    transport.session.awareness(12, 1n, 'null');
    transport.session.update(new Uint8Array([1, 255, 255, 255, 255, 255, 255]), 2n);
    await settle(60_000);
    expect(closed).toMatchObject([{ permanent: true }]);
    expect([read(provider.doc), transport.sessions.length]).toEqual(['intact', 1]);
  });
});
