// Updates that come before what they depend on: nothing is lost, and nothing is called saved too early.

import { expect } from 'vitest';
import * as Y from 'yjs';
import { cat } from '../src/native.ts';
import { authenticate, frame, hocuspocusFrame, type Raw, TYPE } from '../src/raw.ts';
import { stays, until } from '../src/wait.ts';
import { converged, test } from '../src/world.ts';

/** Three updates, each of which depends on those before it, and the text that they make. */
function updates(): {
  readonly all: readonly [Uint8Array, Uint8Array, Uint8Array];
  readonly text: string;
} {
  const doc = new Y.Doc();
  const all: Uint8Array[] = [];
  doc.on('update', (update: Uint8Array) => all.push(update));
  const root = doc.getText('content');
  for (const word of ['one ', 'two ', 'three']) root.insert(root.length, word);
  return {
    all: all as unknown as readonly [Uint8Array, Uint8Array, Uint8Array],
    text: root.toString(),
  };
}

/** How many changes were confirmed. */
const confirmed = (raw: Raw): number =>
  raw.frames
    .map(hocuspocusFrame)
    .filter(({ type, rest }) => type === TYPE.syncStatus && rest[0] === 1).length;

test('y-websocket: a live update may come before the offline edits that it depends on', async ({
  world,
}) => {
  const { door } = await world.server();
  const other = await world.join(door, { kind: 'y-websocket', document: 'doc' });
  const raw = await world.raw(`${door.ws}/yjs/doc`);
  const { all, text } = updates();
  raw.send(frame(0, 2, all[2]));
  raw.send(frame(0, 2, all[1]));
  await stays('nothing', () => other.text() === '' && raw.close === undefined, 300);
  raw.send(frame(0, 1, all[0]));
  await converged([other], text);
  expect(await cat(door, { document: 'doc' })).toBe(text);
  expect(raw.close).toBeUndefined();
});

test('Hocuspocus: such an update is confirmed when what it depends on has come', async ({
  world,
}) => {
  const { door } = await world.server();
  const other = await world.join(door, { kind: 'y-websocket', document: 'doc' });
  const raw = await world.raw(`${door.ws}/hocuspocus`);
  await authenticate(raw, 'doc');
  const { all, text } = updates();
  raw.send(frame('doc', 0, 2, all[1]));
  raw.send(frame('doc', 0, 2, all[2]));
  await stays('not confirmed', () => confirmed(raw) === 0 && raw.close === undefined, 300);
  raw.send(frame('doc', 0, 1, all[0]));
  await until('three confirmations', () => confirmed(raw) === 3);
  await converged([other], text);
});

test('what never becomes complete leaves no trace', async ({ world }) => {
  const { door } = await world.server();
  const other = await world.join(door, { kind: 'y-websocket', document: 'doc' });
  const raw = await world.raw(`${door.ws}/yjs/doc`);
  raw.send(frame(0, 2, updates().all[2]));
  raw.cut();
  other.type('calm');
  const late = await world.join(door, { kind: 'hocuspocus', document: 'doc' });
  await converged([other, late], 'calm');
  expect(late.doc.store.pendingStructs).toBeNull();
  expect(await cat(door, { document: 'doc' })).toBe('calm');
});

test('a client that sends nothing but incomplete updates is not kept for ever', async ({
  world,
}) => {
  const { door } = await world.server();
  const raw = await world.raw(`${door.ws}/yjs/doc`);
  const doc = new Y.Doc();
  const root = doc.getText('content');
  root.insert(0, 'missing');
  doc.on('update', (update: Uint8Array) => raw.send(frame(0, 2, update)));
  // More than are held, by number and by bytes.
  for (let count = 0; count < 2_000; count += 1) root.insert(root.length, 'x'.repeat(1_000));
  const { code } = await raw.closed();
  expect(code < 4400 || code > 4499, `code ${code}`).toBe(true);
  expect(await cat(door, { document: 'doc' })).toBe('');
});

test('what waits for too long for what it depends on ends the session', async ({ world }) => {
  const { door } = await world.server({ 'room.held_max': '1s' });
  const raw = await world.raw(`${door.ws}/yjs/doc`);
  raw.send(frame(0, 2, updates().all[2]));
  const { code } = await raw.closed();
  expect(code < 4400 || code > 4499, `code ${code}`).toBe(true);
});
