// How a WebSocket is opened: origins, sub-protocols, and messages that come in odd pieces.

import { describe, expect } from 'vitest';
import { authenticate, bytes, frame, hex, hocuspocusFrame, TYPE } from '../src/raw.ts';
import { converged, test } from '../src/world.ts';

/** "hi" by client 7 in the root `content`. */
const HI = bytes('0101070004010763 6f6e74656e74 02686900');

describe.each(['/yjs/doc', '/hocuspocus'])('%s', (path) => {
  test('a page of another origin is refused, unless the server lists it', async ({ world }) => {
    const origin = 'https://app.example.com';
    const strict = await world.server();
    await expect(world.raw(`${strict.ws}${path}`, { origin })).rejects.toThrow('403');
    const open = await world.server({ 'transport.allowed_origins': `["${origin}"]` });
    await world.raw(`${open.ws}${path}`, { origin });
    await expect(
      world.raw(`${open.ws}${path}`, { origin: 'https://evil.example.com' }),
    ).rejects.toThrow('403');
  });

  test('a page of the server itself and a client without an origin are let in', async ({
    world,
  }) => {
    const { ws, http } = await world.server();
    await world.raw(`${ws}${path}`, { origin: http });
    await world.raw(`${ws}${path}`);
  });

  test('one of the sub-protocols that a client offers is selected', async ({ world }) => {
    const { ws } = await world.server();
    const protocols = ['first', 'second'];
    const raw = await world.raw(`${ws}${path}`, { protocols });
    expect(protocols).toContain(raw.protocol);
    expect((await world.raw(`${ws}${path}`)).protocol).toBe('');
  });
});

test('several y-websocket messages in one frame are several messages', async ({ world }) => {
  const { door } = await world.server();
  const raw = await world.raw(`${door.ws}/yjs/doc`);
  raw.send(
    Uint8Array.of(
      ...frame(0, 2, HI),
      ...frame(1, frame(1, 7, 1, '{}')),
      ...frame(0, 0, bytes('00')),
    ),
  );
  await raw.next('the answer to the last of them', (data) => hex(data) === hex(frame(0, 1, HI)));
});

test('a message in several WebSocket frames is one message', async ({ world }) => {
  const { door } = await world.server();
  const one = await world.raw(`${door.ws}/yjs/doc`);
  one.sendInPieces(frame(0, 2, HI), 5);
  const other = await world.join(door, { kind: 'y-websocket', document: 'doc' });
  await converged([other], 'hi');
  const two = await world.raw(`${door.ws}/hocuspocus`);
  await authenticate(two, 'doc');
  two.sendInPieces(frame('doc', 0, 2, HI), 5);
  await two.next('the confirmation', (data) => hocuspocusFrame(data).type === TYPE.syncStatus);
});
