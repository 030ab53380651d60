// Bad input hurts the one who sent it, and nobody else.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { authenticate, bytes, frame, hocuspocusFrame, TYPE } from '../src/raw.ts';
import type { Door, Settings } from '../src/server.ts';
import { stays, until } from '../src/wait.ts';
import { converged, sees, test, type World } from '../src/world.ts';

/** "hi" by client 7 in the root `t`. */
const HI = bytes('010107000401017402686900');

/** The payloads of sync and awareness messages that cannot be read. */
const UNREADABLE: Readonly<Record<string, Uint8Array>> = {
  'a sync message without a sub-type': frame(0),
  'an unknown sync sub-type': frame(0, 9, Uint8Array.of(0)),
  'an update that ends early': frame(0, 2, HI.subarray(0, 7)),
  'an update with more behind it': frame(0, 2, Uint8Array.of(...HI, 1, 2, 3)),
  'an update that is noise': frame(0, 2, bytes('ffffffffffffffffffffff')),
  'an update longer than the frame': bytes('0002 ff01 00'),
  'a state vector that is noise': frame(0, 0, bytes('ffffffff0f')),
  'a state vector of four bytes that asks for much': frame(0, 0, bytes('8080807f')),
  'an empty state vector': frame(0, 0, bytes('')),
  'a length of more than 53 bits': bytes('0002 ffffffffffffffffff7f'),
  'a length that does not end': bytes('0002 ffffffff'),
  'an awareness update that ends early': frame(1, bytes('0101')),
  'an awareness state that is not JSON': frame(1, frame(1, 1, 1, '{"user":')),
  'an awareness state that is not UTF-8': frame(1, bytes('01 01 01 02 fffe')),
  'an awareness update of a million clients': frame(1, bytes('c0843d 01 01 00')),
};

/** Limits that are quick to exceed. */
const SMALL: Settings = {
  'transport.message_bytes_max': 131_072,
  'session.update_bytes_max': 32_768,
};

/** Messages that WebSocket itself forbids, below the library. */
const UNLAWFUL: Readonly<Record<string, Uint8Array>> = {
  'a reserved opcode': bytes('83 80 00000000'),
  'a frame that is not masked': bytes('82 01 00'),
  'a control frame that is too long': bytes(`89 fe 007e 00000000 ${'00'.repeat(126)}`),
  'a reserved bit': bytes('c2 80 00000000'),
  'a continuation of nothing': bytes('80 80 00000000'),
};

/**
 * Close codes. What a y-websocket client would only say again when it came back gets a code that
 * stops it for good; Hocuspocus providers come back after any.
 */
const CODE = {
  unlawful: 1002,
  text: 1003,
  yWebsocket: { unreadable: 4400, tooLarge: 4413 },
  hocuspocus: { unreadable: 4400, tooLarge: 1009 },
} as const;

/** Others, who are to notice nothing. Returns the check that they have not. */
async function bystanders(
  world: World,
  door: Door,
  document: string,
): Promise<() => Promise<void>> {
  const one = await world.join(door, { kind: 'y-websocket', document, user: 'one' });
  const two = await world.join(door, { kind: 'hocuspocus', document, user: 'two' });
  one.type('calm');
  await converged([one, two], 'calm');
  return async () => {
    two.type('!');
    await converged([one, two], 'calm!');
    await sees([one, two], ['one', 'two']);
    for (const { watch } of [one, two]) expect(watch).toMatchObject({ opened: 1, closes: [] });
    expect(await cat(door, { document })).toBe('calm!');
  };
}

describe('y-websocket', () => {
  const unreadable = {
    ...UNREADABLE,
    'a frame of an unknown type': frame(99),
  };

  test.for(Object.entries(unreadable))(
    '%s closes that client only',
    async ([, message], { world }) => {
      const { door } = await world.server();
      const check = await bystanders(world, door, 'doc');
      const raw = await world.raw(`${door.ws}/yjs/doc`);
      raw.send(message);
      expect(await raw.closed()).toMatchObject({ code: CODE.yWebsocket.unreadable });
      await check();
    },
  );

  test('text closes that client only', async ({ world }) => {
    const { door } = await world.server();
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/yjs/doc`);
    raw.sendText('hello');
    expect(await raw.closed()).toMatchObject({ code: CODE.text });
    await check();
  });

  test.for(Object.entries(UNLAWFUL))(
    '%s closes that client only',
    async ([, message], { world }) => {
      const { door } = await world.server();
      const check = await bystanders(world, door, 'doc');
      const raw = await world.raw(`${door.ws}/yjs/doc`);
      raw.sendBelow(message);
      expect(await raw.closed()).toMatchObject({ code: CODE.unlawful });
      await check();
    },
  );

  test('a message that is too large closes that client only', async ({ world }) => {
    const { door } = await world.server(SMALL);
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/yjs/doc`);
    raw.send(frame(0, 2, new Uint8Array(200_000)));
    expect(await raw.closed()).toMatchObject({ code: CODE.yWebsocket.tooLarge });
    await check();
  });

  test('an update that is too large closes that client only', async ({ world }) => {
    const { door } = await world.server(SMALL);
    const check = await bystanders(world, door, 'doc');
    const one = await world.join(door, { kind: 'y-websocket', document: 'doc' });
    await converged([one], 'calm');
    one.type('x'.repeat(60_000));
    await until('the close', () => one.watch.closes.length > 0);
    expect(one.watch.closes[0]).toMatchObject({ code: CODE.yWebsocket.tooLarge });
    one.destroy();
    await check();
  });

  test('an awareness update about somebody else changes nothing', async ({ world }) => {
    const { door } = await world.server();
    const victim = await world.join(door, { kind: 'y-websocket', document: 'doc', user: 'victim' });
    const raw = await world.raw(`${door.ws}/yjs/doc`);
    raw.send(frame(1, frame(1, 5, 1, '{"user":{"name":"raw"}}')));
    await sees([victim], ['raw', 'victim']);
    // The provider itself repeats what it heard of others: it is no reason to close.
    raw.send(frame(1, frame(1, victim.id(), 1000, '{"user":{"name":"forged"}}')));
    raw.send(frame(1, frame(1, victim.id(), 2000, 'null')));
    raw.send(frame(1, frame(1, 5, 2, '{"user":{"name":"raw again"}}')));
    await sees([victim], ['raw again', 'victim']);
    const late = await world.join(door, { kind: 'hocuspocus', document: 'doc', user: 'late' });
    await sees([victim, late], ['late', 'raw again', 'victim']);
    expect(raw.close).toBeUndefined();
  });
});

describe('Hocuspocus', () => {
  const unreadable = {
    ...UNREADABLE,
    'a frame of an unknown type': frame(99),
    'a broadcast, which servers send to each other': frame(TYPE.broadcastStateless, 'all'),
    'an unknown sub-type of Auth': frame(TYPE.auth, 7),
    'an Auth that ends early': bytes('0200 0a 6162'),
  };

  test.for(Object.entries(unreadable))(
    '%s closes that document only',
    async ([, message], { world }) => {
      const { door } = await world.server();
      const check = await bystanders(world, door, 'doc');
      const raw = await world.raw(`${door.ws}/hocuspocus`);
      await authenticate(raw, 'other');
      await authenticate(raw, 'doc');
      raw.send(Uint8Array.of(...frame('doc'), ...message));
      await raw.next('the close of the document', (data) => {
        const { address, type } = hocuspocusFrame(data);
        return address === 'doc' && type === TYPE.close;
      });
      raw.send(frame('other', 0, 2, HI));
      await raw.next('the other document to go on', (data) => {
        const { address, type, rest } = hocuspocusFrame(data);
        return address === 'other' && type === TYPE.syncStatus && rest[0] === 1;
      });
      expect(raw.close).toBeUndefined();
      await check();
    },
  );

  test.for(
    Object.entries({
      'an empty frame': bytes(''),
      'an address that ends early': bytes('7f 646f63'),
      'an address that is not UTF-8': bytes('02 fffe 00 00 01 00'),
      'an empty address': bytes('00 02 00 00'),
    }),
  )('%s closes that socket only', async ([, message], { world }) => {
    const { door } = await world.server();
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/hocuspocus`);
    await authenticate(raw, 'doc');
    raw.send(message);
    expect(await raw.closed()).toMatchObject({ code: CODE.hocuspocus.unreadable });
    await check();
  });

  test('text closes that socket only', async ({ world }) => {
    const { door } = await world.server();
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/hocuspocus`);
    raw.sendText('hello');
    expect(await raw.closed()).toMatchObject({ code: CODE.text });
    await check();
  });

  test.for(Object.entries(UNLAWFUL))(
    '%s closes that socket only',
    async ([, message], { world }) => {
      const { door } = await world.server();
      const check = await bystanders(world, door, 'doc');
      const raw = await world.raw(`${door.ws}/hocuspocus`);
      await authenticate(raw, 'doc');
      raw.sendBelow(message);
      expect(await raw.closed()).toMatchObject({ code: CODE.unlawful });
      await check();
    },
  );

  test('a message that is too large closes that socket only', async ({ world }) => {
    const { door } = await world.server(SMALL);
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/hocuspocus`);
    await authenticate(raw, 'doc');
    raw.send(frame('doc', 0, 2, new Uint8Array(200_000)));
    expect(await raw.closed()).toMatchObject({ code: CODE.hocuspocus.tooLarge });
    await check();
  });

  test('an update that is too large stays unsaved, and nobody else sees it', async ({ world }) => {
    const { door } = await world.server(SMALL);
    const check = await bystanders(world, door, 'doc');
    const one = await world.join(door, { kind: 'hocuspocus', document: 'doc' });
    await converged([one], 'calm');
    await until('everything to be saved', () => !one.hasUnsyncedChanges());
    one.type('x'.repeat(60_000));
    const before = one.watch.messages;
    await until('an answer', () => one.watch.messages > before);
    await stays('unsaved', () => one.hasUnsyncedChanges(), 500);
    one.destroy();
    await check();
  });

  test('a flood before Auth is bounded', async ({ world }) => {
    const { door } = await world.server();
    const check = await bystanders(world, door, 'doc');
    const raw = await world.raw(`${door.ws}/hocuspocus`);
    const large = frame('doc', 0, 2, new Uint8Array(500_000));
    for (let count = 0; count < 30 && raw.close === undefined; count += 1) raw.send(large);
    expect(await raw.closed()).toMatchObject({ code: 4205 });
    await check();
  });
});
