// "Saved" is true: what a provider shows as saved, or what somebody else has seen, is on the disk.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { HOCUSPOCUSES, KINDS } from '../src/participant.ts';
import { within } from '../src/wait.ts';
import { test } from '../src/world.ts';

const ROUNDS = 8;

describe.each(HOCUSPOCUSES)('%s', (kind) => {
  test('an edit is on disk when hasUnsyncedChanges turns false', async ({ world }) => {
    const server = await world.server();
    const document = 'saved';
    let expected = '';
    for (let round = 0; round < ROUNDS; round += 1) {
      const one = await world.join(server.door, { kind, document });
      const killed = new Promise<void>((done, failed) => {
        one.onceSaved(() => server.kill9().then(done, failed));
      });
      const word = `round ${round}, `;
      one.type(word);
      expect(one.hasUnsyncedChanges()).toBe(true);
      await within('the edit to be saved', killed);
      // It must not come back and bring the edit once more.
      one.destroy();
      expected += word;
      await server.restart();
      expect(await cat(server.door, { document })).toBe(expected);
    }
  });

  test('a burst of edits is on disk when hasUnsyncedChanges turns false', async ({ world }) => {
    const server = await world.server();
    const one = await world.join(server.door, { kind, document: 'burst' });
    const killed = new Promise<void>((done, failed) => {
      one.onceSaved(() => server.kill9().then(done, failed));
    });
    let expected = '';
    for (let index = 0; index < 500; index += 1) {
      one.type(`${index},`);
      expected += `${index},`;
    }
    await within('the edits to be saved', killed);
    one.destroy();
    await server.restart();
    expect(await cat(server.door, { document: 'burst' })).toBe(expected);
  });
});

describe.each(KINDS)('%s', (kind) => {
  test('an edit that somebody saw is on disk', async ({ world }) => {
    const server = await world.server();
    const document = 'seen';
    let expected = '';
    for (let round = 0; round < ROUNDS; round += 1) {
      const here = await world.join(server.door, { kind, document });
      const there = await world.join(server.door, { kind, document });
      const word = `round ${round}, `;
      const killed = new Promise<void>((done, failed) => {
        there.doc.once('update', () => server.kill9().then(done, failed));
      });
      here.type(word);
      await within('the edit to be seen', killed);
      here.destroy();
      there.destroy();
      expected += word;
      await server.restart();
      expect(await cat(server.door, { document })).toBe(expected);
    }
  });
});
