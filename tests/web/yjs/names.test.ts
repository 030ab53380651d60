// A name means the same document through every door, or is refused by every door.

import { describe, expect } from 'vitest';
import { cat, type } from '../src/native.ts';
import { HOCUSPOCUSES, KINDS } from '../src/participant.ts';
import { stays, until } from '../src/wait.ts';
import { converged, synced, test } from '../src/world.ts';

/** Names of documents: see Join.document in collaboration.proto. */
const GOOD = [
  'plain',
  'a/b/c',
  'Mixed.Case-1_2',
  'user@example.org:notes~1',
  'a+b',
  'x'.repeat(128),
];

/** Not names of documents. */
const BAD = {
  'a space': 'my room',
  'a letter beyond ASCII': 'größe',
  'an empty segment': 'a//b',
  'a slash at the end': 'a/',
  'too long': 'x'.repeat(129),
  'a percent sign': 'a%b',
  'a backslash, escaped': 'a%5Cb',
  'a character of control, escaped': 'a%00b',
};

/** Longer than the first five attempts of a provider that would try again. */
const ATTEMPTS_MS = 4_000;

test.for(GOOD)('%s is one document through all doors', async (document, { world }) => {
  const { door } = await world.server();
  const all = KINDS.map((kind) => world.open(door, { kind, document }));
  await synced(...all);
  all[0]?.type('A');
  await converged(all, 'A');
  all[3]?.type('B');
  await converged(all, 'AB');
  await type(door, { document }, 'C');
  await converged(all, 'ABC');
  expect(await cat(door, { document })).toBe('ABC');
});

test('a name that y-websocket percent-encodes is decoded once', async ({ world }) => {
  const { door } = await world.server();
  // In a URL path `%2B` is `+`; what is escaped twice is not unescaped twice.
  const encoded = await world.join(door, { kind: 'y-websocket', document: 'a%2Bb%2fc' });
  const plain = await world.join(door, { kind: 'hocuspocus', document: 'a+b/c' });
  encoded.type('same');
  await converged([encoded, plain], 'same');
  const twice = world.open(door, { kind: 'y-websocket', document: 'a%252Bb' });
  await until('the refusal', () => twice.stopped.length > 0);
});

describe.each(Object.entries(BAD))('%s', (_, document) => {
  test('is refused for good by the y-websocket door', async ({ world }) => {
    const { door } = await world.server();
    const one = world.open(door, { kind: 'y-websocket', document });
    await until(
      () => `the refusal; ${JSON.stringify(one.watch)}`,
      () => one.stopped.length > 0,
    );
    expect(one.synced()).toBe(false);
    expect(one.wantsToConnect()).toBe(false);
  });

  test.for(HOCUSPOCUSES)(
    'is refused in-band by the Hocuspocus door, %s',
    async (kind, { world }) => {
      const { door } = await world.server();
      const socket = world.socket(door, kind);
      const good = await world.join(door, { kind, document: 'good' }, socket);
      // A name that is escaped is not unescaped here: it stands in no URL.
      const bad = world.open(door, { kind, document }, socket);
      await until('the refusal', () => bad.denied.length > 0);
      expect(bad.synced()).toBe(false);
      good.type('goes on');
      await until('the other document to be saved', () => !good.hasUnsyncedChanges());
      expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
    },
  );
});

test('y-websocket 3 does not come back after a refusal', async ({ world }) => {
  const { door } = await world.server();
  const one = world.open(door, { kind: 'y-websocket', document: 'my room' });
  await until('the refusal', () => one.stopped.length > 0);
  await stays('one attempt', () => one.watch.opened === 1, ATTEMPTS_MS);
});
