// Every door, one document: all providers and native clients edit the same text.

import { describe, expect } from 'vitest';
import { cat, type } from '../src/native.ts';
import { KINDS } from '../src/participant.ts';
import type { Door } from '../src/server.ts';
import { until } from '../src/wait.ts';
import { converged, offline, synced, test, type World } from '../src/world.ts';

/** Where clients come in: directly, or through Envoy. */
const ways: Readonly<Record<string, (world: World) => Promise<Door>>> = {
  directly: async (world) => (await world.server()).door,
  'through Envoy': async (world) => (await world.envoy(await world.server())).door,
};

describe.each(Object.entries(ways))('%s', (_, open) => {
  test('all providers and a native client converge', async ({ world }) => {
    const door = await open(world);
    const document = 'notes/all';
    const follower = world.follow(door, { document });
    const all = await Promise.all(KINDS.map((kind) => world.join(door, { kind, document })));
    let text = '';
    for (const one of all) {
      text += `${one.kind} `;
      one.type(`${one.kind} `);
      await converged(all, text);
    }
    await type(door, { document }, 'native');
    text = await converged(all, `${text}native`);
    await follower.shows(text);
    expect(await cat(door, { document })).toBe(text);
  });

  test('edits at the same time converge, each exactly once', async ({ world }) => {
    const door = await open(world);
    const document = 'burst';
    const all = await Promise.all(KINDS.map((kind) => world.join(door, { kind, document })));
    const words = all.flatMap((one, index) =>
      Array.from({ length: 50 }, (_, round) => {
        const word = `<${index}.${round}>`;
        one.type(word, round % 2 === 0 ? 0 : one.text().length);
        return word;
      }),
    );
    const length = words.join('').length;
    await until('all words to arrive', () => all.every((one) => one.text().length >= length));
    expect(wordsOf(await converged(all))).toEqual(words.sort());
    expect(wordsOf(await cat(door, { document }))).toEqual(words.sort());
  });
});

describe.each(KINDS)('%s', (kind) => {
  test('edits made offline on both sides are merged on coming back', async ({ world }) => {
    const { door } = await world.server();
    const document = 'offline';
    const [here, there] = [
      await world.join(door, { kind, document }),
      await world.join(door, { kind: 'y-websocket', document }),
    ];
    here.type('shared');
    await converged([here, there], 'shared');
    await offline(here);
    here.type('A', 0);
    here.erase(here.text().length - 1, 1);
    there.type('Z');
    expect([here.text(), there.text()]).toEqual(['Ashare', 'sharedZ']);
    here.connect();
    await converged([here, there], 'AshareZ');
    expect(await cat(door, { document })).toBe('AshareZ');
  });

  test('a document of a megabyte arrives whole at a newcomer', async ({ world }) => {
    const { door } = await world.server();
    const document = 'large';
    const writer = await world.join(door, { kind, document });
    const block = 'abcdefghij'.repeat(20_000);
    for (let round = 0; round < 5; round += 1) writer.type(`${round}${block}`);
    const text = writer.text();
    const others = KINDS.map((kind) => world.open(door, { kind, document }));
    await synced(...others);
    await converged([writer, ...others], text);
  });
});

const wordsOf = (text: string): string[] => (text.match(/<[^>]*>/g) ?? []).sort();
