// The conversations that the reference servers have, byte for byte.
//
// They were recorded between y-websocket 3.1.0, @hocuspocus/provider 4.8.0 and the servers of their
// projects. Every byte that those servers send is fixed by the protocol and by what the clients
// said, but for some liberties, which are taken out of what the server says before it is compared:
// - heartbeats: an empty awareness update (`01 01 00`, after the address in Hocuspocus);
// - echoes: an update or awareness update of the client itself. Servers may send it back or not,
//   the one as it came, the other with a clock of the server's own;
// - the answer to a CLOSE by a Hocuspocus client, which no longer listens there.

import * as decoding from 'lib0/decoding';
import { expect } from 'vitest';
import { bytes, frame, hex, hocuspocusFrame, type Raw, TYPE } from '../src/raw.ts';
import { until } from '../src/wait.ts';
import { test } from '../src/world.ts';

/** "hi" by client 7 in the root `t`, as an update: what the server holds. */
const HI = '010107000401017402686900';
/** The state vector of that. */
const HI_VECTOR = '010702';
/** "A" at the beginning, by client 1, as an update. */
const A = '01010100440700014100';
/** The state vector {}, and the update without anything. */
const EMPTY_VECTOR = '00';
const EMPTY_UPDATE = '0000';
/** `{}` at clock 0 as client 1. */
const HELLO = '010100027b7d';
/** `{"user":{"n":"x"}}` at clock 1 as client 1. */
const CURSOR = '010101127b2275736572223a7b226e223a2278227d7d';
/** `null` at clock 2 as client 1. */
const GONE = '010102046e756c6c';

/** Waits until the server has said exactly this, and takes it. */
async function says(
  raw: Raw,
  expected: readonly string[],
  significant: (data: Uint8Array) => boolean,
): Promise<void> {
  const said = (): string[] => raw.frames.filter(significant).map(hex);
  const wanted = expected.map((line) => line.replaceAll(/\s/g, ''));
  await until(
    () => `the server to say\n${wanted.join('\n')}\nit said\n${said().join('\n')}`,
    () => said().length >= wanted.length,
  );
  expect(said()).toEqual(wanted);
  raw.frames.length = 0;
}

/** The client ids in an awareness update. */
function clientsOf(update: Uint8Array): number[] {
  const decoder = decoding.createDecoder(update);
  return Array.from({ length: decoding.readVarUint(decoder) }, () => {
    const id = decoding.readVarUint(decoder);
    decoding.readVarUint(decoder);
    decoding.readVarString(decoder);
    return id;
  });
}

/** Whether a frame of the y-websocket protocol is neither a heartbeat nor an echo to client 1. */
function yWebsocketSignificant(data: Uint8Array): boolean {
  if (data[0] === 1) {
    const decoder = decoding.createDecoder(data.subarray(1));
    return clientsOf(decoding.readVarUint8Array(decoder)).some((id) => id !== 1);
  }
  return hex(data) !== hex(frame(0, 2, bytes(A)));
}

/** The same for Hocuspocus. */
function hocuspocusSignificant(data: Uint8Array): boolean {
  const { type, rest } = hocuspocusFrame(data);
  if (type === TYPE.awareness) {
    return clientsOf(decoding.readVarUint8Array(decoding.createDecoder(rest))).some(
      (id) => id !== 1,
    );
  }
  return type !== TYPE.close && hex(rest) !== hex(frame(2, bytes(A)));
}

test('y-websocket: the recorded conversation', async ({ world }) => {
  const { door } = await world.server();
  const url = `${door.ws}/yjs/doc`;
  const before = await world.raw(url);
  await says(before, [`00 00 01 ${EMPTY_VECTOR}`], yWebsocketSignificant);
  before.send(frame(0, 2, bytes(HI)));
  before.send(`00 00 01 ${EMPTY_VECTOR}`);
  await before.next('the state', (data) => hex(data) === `00010c${HI}`);

  const one = await world.raw(url);
  await says(one, [`00 00 03 ${HI_VECTOR}`], yWebsocketSignificant);
  one.send(`00 00 01 ${EMPTY_VECTOR}`);
  await says(one, [`00 01 0c ${HI}`], yWebsocketSignificant);
  one.send(`01 06 ${HELLO}`);
  one.send(`00 01 02 ${EMPTY_UPDATE}`);
  before.frames.length = 0;
  one.send(`00 02 0a ${A}`);
  // The other sees the update as it was sent.
  await before.next('the update', (data) => hex(data) === `00020a${A}`);
  one.send(`01 16 ${CURSOR}`);
  const cursor = await before.next('the cursor', (data) => data[0] === 1 && data.length > 16);
  expect(hex(cursor).endsWith(CURSOR.slice(6)), hex(cursor)).toBe(true);
  one.send(`01 08 ${GONE}`);
  await before.next(
    'the end of the cursor',
    (data) => data[0] === 1 && hex(data).endsWith('046e756c6c'),
  );
  // Nothing else was said to the one, and it is still there: a question still has its answer.
  one.send(`00 00 03 ${HI_VECTOR}`);
  await says(one, [`00 01 0a ${A}`], yWebsocketSignificant);
  expect(one.close).toBeUndefined();
});

test('y-websocket: queryAwareness is answered with the known states, or not at all', async ({
  world,
}) => {
  const { door } = await world.server();
  const one = await world.raw(`${door.ws}/yjs/doc`);
  one.send('03');
  one.send(`00 00 01 ${EMPTY_VECTOR}`);
  await one.next(
    'an answer to what came after it',
    (data) => hex(data) === `000102${EMPTY_UPDATE}`,
  );
  expect(one.close).toBeUndefined();
});

test('Hocuspocus: the recorded conversation', async ({ world }) => {
  const { door } = await world.server();
  const seed = await world.raw(`${door.ws}/yjs/doc`);
  seed.send(frame(0, 2, bytes(HI)));
  seed.send(`00 00 01 ${EMPTY_VECTOR}`);
  await seed.next('the state', (data) => hex(data) === `00010c${HI}`);
  seed.frames.length = 0;

  const doc = '03646f63';
  const one = await world.raw(`${door.ws}/hocuspocus`);
  // All at once, as the provider does, and before the server has said anything.
  one.send(`${doc} 02 00 03746f6b 05342e382e30`);
  one.send(`${doc} 00 00 01 ${EMPTY_VECTOR}`);
  one.send(`${doc} 01 06 ${HELLO}`);
  await says(
    one,
    [
      `${doc} 02 02 0a726561642d7772697465`,
      `${doc} 00 00 03 ${HI_VECTOR}`,
      `${doc} 00 01 0c ${HI}`,
    ],
    hocuspocusSignificant,
  );
  one.send(`${doc} 00 01 02 ${EMPTY_UPDATE}`);
  await says(one, [`${doc} 08 01`], hocuspocusSignificant);
  one.send(`${doc} 00 02 0a ${A}`);
  await says(one, [`${doc} 08 01`], hocuspocusSignificant);
  await seed.next('the update', (data) => hex(data) === `00020a${A}`);
  one.send(`${doc} 01 16 ${CURSOR}`);
  const cursor = await seed.next('the cursor', (data) => data[0] === 1 && data.length > 16);
  expect(hex(cursor).endsWith(CURSOR.slice(6)), hex(cursor)).toBe(true);
  // A query is answered with nothing.
  one.send(`${doc} 03`);
  one.send(`${doc} 00 00 03 ${HI_VECTOR}`);
  await says(one, [`${doc} 00 00 05 0207020101`, `${doc} 00 01 0a ${A}`], hocuspocusSignificant);
  // The document is left; a frame to it is not answered, another Auth is a fresh start.
  one.send(`${doc} 07`);
  await seed.next(
    'the end of the cursor',
    (data) => data[0] === 1 && hex(data).endsWith('046e756c6c'),
  );
  one.send(`${doc} 02 00 00`);
  await says(one, [`${doc} 02 02 0a726561642d7772697465`], hocuspocusSignificant);
  expect(one.close).toBeUndefined();
});

test('Hocuspocus: every frame carries the address of the client, session id and all', async ({
  world,
}) => {
  const { door } = await world.server();
  const address = '09 646f63007365737331';
  const one = await world.raw(`${door.ws}/hocuspocus`);
  one.send(`${address} 02 00 00 05342e382e30`);
  one.send(`${address} 00 00 01 ${EMPTY_VECTOR}`);
  one.send(`${address} 00 01 02 ${EMPTY_UPDATE}`);
  one.send(frame('doc\0sess1', 0, 2, bytes(HI)));
  await says(
    one,
    [
      `${address} 02 02 0a726561642d7772697465`,
      `${address} 00 00 01 ${EMPTY_VECTOR}`,
      `${address} 00 01 02 ${EMPTY_UPDATE}`,
      `${address} 08 01`,
      `${address} 08 01`,
    ],
    (data) =>
      hocuspocusSignificant(data) && hex(hocuspocusFrame(data).rest) !== hex(frame(2, bytes(HI))),
  );
});

test('Hocuspocus: frames that come before Auth wait for it, in their order', async ({ world }) => {
  const { door } = await world.server();
  const one = await world.raw(`${door.ws}/hocuspocus`);
  one.send(frame('doc', 0, 0, bytes(EMPTY_VECTOR)));
  one.send(frame('doc', 0, 2, bytes(HI)));
  one.send(frame('doc', TYPE.auth, 0, ''));
  await says(
    one,
    [
      '03646f63 02 02 0a726561642d7772697465',
      `03646f63 00 00 01 ${EMPTY_VECTOR}`,
      `03646f63 00 01 02 ${EMPTY_UPDATE}`,
      '03646f63 08 01',
    ],
    (data) =>
      hocuspocusSignificant(data) && hex(hocuspocusFrame(data).rest) !== hex(frame(2, bytes(HI))),
  );
});
