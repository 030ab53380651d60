// The server goes, by force or on purpose, and comes back: nothing is lost, nothing comes twice.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { HOCUSPOCUSES, KINDS, Y_WEBSOCKETS } from '../src/participant.ts';
import { until } from '../src/wait.ts';
import { converged, offline, synced, test } from '../src/world.ts';

/** More than the backoff of any provider after the first failures. */
const RECONNECT_MS = 25_000;

describe.each(KINDS)('%s', (kind) => {
  test('edits made before, during and after a kill -9 arrive once', async ({ world }) => {
    const server = await world.server();
    const document = 'killed';
    const here = await world.join(server.door, { kind, document });
    const there = await world.join(server.door, { kind, document });
    here.type('before ');
    await converged([here, there], 'before ');
    await server.kill9();
    await until('both to notice', () => !here.connected() && !there.connected());
    here.type('during ');
    expect(there.text()).toBe('before ');
    await server.restart();
    await until('both to be back', () => here.synced() && there.synced(), RECONNECT_MS);
    await converged([here, there], 'before during ');
    there.type('after');
    await converged([here, there], 'before during after');
    expect(await cat(server.door, { document })).toBe('before during after');
  });

  test('a kill -9 in the middle of typing loses nothing and doubles nothing', async ({ world }) => {
    const server = await world.server();
    const document = 'typing';
    const here = await world.join(server.door, { kind, document });
    const there = await world.join(server.door, { kind, document });
    let typed = '';
    const key = (): void => {
      const character = String.fromCharCode(97 + (typed.length % 26));
      typed += character;
      here.type(character);
    };
    for (let count = 0; count < 200; count += 1) key();
    await until('some keys to arrive', () => there.text().length > 0);
    for (let count = 0; count < 100; count += 1) key();
    await server.restart();
    for (let count = 0; count < 100; count += 1) key();
    await until('both to be back', () => here.synced() && there.synced(), RECONNECT_MS);
    await converged([here, there], typed);
    expect(await cat(server.door, { document })).toBe(typed);
  });

  test('what others saw before a kill -9 is there after it', async ({ world }) => {
    const server = await world.server();
    const document = 'seen';
    const here = await world.join(server.door, { kind, document });
    const there = await world.join(server.door, { kind: 'y-websocket', document });
    here.type('seen');
    await converged([there], 'seen');
    await server.kill9();
    here.destroy();
    there.destroy();
    await server.restart();
    expect(await cat(server.door, { document })).toBe('seen');
  });

  test('a drain keeps the edits and the provider comes back', async ({ world }) => {
    const server = await world.server();
    const document = 'drained';
    const here = await world.join(server.door, { kind, document });
    const there = await world.join(server.door, { kind, document });
    here.type('one ');
    await converged([there], 'one ');
    here.type('two ');
    expect(await server.drain()).toBe(0);
    await until('both to notice', () => !here.connected() && !there.connected());
    there.type('three ', 0);
    await server.restart();
    await until('both to be back', () => here.synced() && there.synced(), RECONNECT_MS);
    await converged([here, there], 'three one two ');
    expect(here.wantsToConnect()).toBe(true);
  });

  test('Envoy is killed and comes back: the provider goes on', async ({ world }) => {
    const server = await world.server();
    const envoy = await world.envoy(server);
    const document = 'proxied';
    const here = await world.join(envoy.door, { kind, document });
    const there = await world.join(server.door, { kind, document });
    await envoy.kill9();
    await until('the provider to notice', () => !here.connected());
    here.type('here ');
    there.type('there ');
    await envoy.restart();
    await until('the provider to be back', () => here.synced(), RECONNECT_MS);
    const text = await converged([here, there]);
    expect([...text.matchAll(/here |there /g)].map(String).sort()).toEqual(['here ', 'there ']);
  });
});

describe.each(Y_WEBSOCKETS)('%s', (kind) => {
  test('a drain closes the socket with 1012', async ({ world }) => {
    const server = await world.server();
    const one = await world.join(server.door, { kind, document: 'drained' });
    expect(await server.drain()).toBe(0);
    await until('the close', () => one.watch.closes.length > 0);
    expect(one.watch.closes[0]?.code).toBe(1012);
    expect(one.stopped).toEqual([]);
  });
});

describe.each(HOCUSPOCUSES)('%s', (kind) => {
  test('all documents of one socket come back after a kill -9', async ({ world }) => {
    const server = await world.server();
    const socket = world.socket(server.door, kind);
    const documents = ['a', 'b', 'c'];
    const all = documents.map((document) => world.open(server.door, { kind, document }, socket));
    await synced(...all);
    for (const one of all) one.type(`${one.document}1`);
    await until('everything to be saved', () => all.every((one) => !one.hasUnsyncedChanges()));
    await server.restart();
    for (const one of all) one.type(`${one.document}2`);
    await until(
      'everything to be saved',
      () => all.every((one) => one.synced() && !one.hasUnsyncedChanges()),
      RECONNECT_MS,
    );
    for (const document of documents) {
      expect(await cat(server.door, { document })).toBe(`${document}1${document}2`);
    }
  });
});

describe.each(KINDS)('%s', (kind) => {
  test('an edit made offline is given to a server that has never seen the document', async ({
    world,
  }) => {
    const [first, second] = [await world.server(), await world.server()];
    const here = await world.join(first.door, { kind, document: 'moved' });
    here.type('moved');
    await offline(here);
    const there = world.open(second.door, { kind, document: 'moved' });
    await synced(there);
    expect(there.text()).toBe('');
    there.type('x');
    await converged([there], 'x');
    expect(await cat(first.door, { document: 'moved' })).toBe('moved');
  });
});
