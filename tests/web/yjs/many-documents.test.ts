// Many documents on one Hocuspocus socket.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { until } from '../src/wait.ts';
import { converged, sees, synced, test } from '../src/world.ts';

const DOCUMENTS = 50;

const sockets = [
  { name: 'hocuspocus', who: { kind: 'hocuspocus', sessionAwareness: false } },
  { name: 'hocuspocus with session ids', who: { kind: 'hocuspocus', sessionAwareness: true } },
  { name: 'hocuspocus-3', who: { kind: 'hocuspocus-3' } },
] as const;

describe.each(sockets)('$name', ({ who }) => {
  test('fifty documents share a socket and stay apart', async ({ world }) => {
    const { door } = await world.server();
    const socket = world.socket(door, who.kind);
    const names = Array.from({ length: DOCUMENTS }, (_, index) => `many/${index}`);
    const all = names.map((document) =>
      world.open(door, { ...who, document, user: document }, socket),
    );
    await synced(...all);
    for (const one of all) one.type(`text of ${one.document}`);
    await until('everything to be saved', () => all.every((one) => !one.hasUnsyncedChanges()));
    const [first, last] = [all[0], all.at(-1)];
    if (first === undefined || last === undefined) throw new Error('opened');
    for (const one of [first, last]) {
      const other = await world.join(door, {
        kind: 'y-websocket',
        document: one.document,
        user: 'other',
      });
      await converged([one, other], `text of ${one.document}`);
      await sees([one, other], ['other', one.document]);
      other.type('!');
      await converged([one, other], `text of ${one.document}!`);
    }
    expect(all[1]?.text()).toBe('text of many/1');
    expect(await cat(door, { document: 'many/1' })).toBe('text of many/1');
    expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
  });

  test('one document is left and opened again, the others go on', async ({ world }) => {
    const { door } = await world.server();
    const socket = world.socket(door, who.kind);
    const [a, b] = ['a', 'b'].map((document) => world.open(door, { ...who, document }, socket));
    if (a === undefined || b === undefined) throw new Error('opened');
    await synced(a, b);
    const other = await world.join(door, { kind: 'y-websocket', document: 'a' });
    a.detach();
    other.type('while away');
    b.type('b');
    await until('b to be saved', () => !b.hasUnsyncedChanges());
    expect(a.text()).toBe('');
    a.attach();
    await converged([a, other], 'while away');
    a.type(', back');
    await converged([a, other], 'while away, back');
    expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
  });
});

test('with session ids, one document is opened twice on a socket', async ({ world }) => {
  const { door } = await world.server();
  const socket = world.socket(door, 'hocuspocus');
  const who = { kind: 'hocuspocus', document: 'twice', sessionAwareness: true } as const;
  const one = await world.join(door, { ...who, user: 'one' }, socket);
  const two = await world.join(door, { ...who, user: 'two' }, socket);
  one.type('one ');
  await converged([one, two], 'one ');
  two.type('two');
  await converged([one, two], 'one two');
  await sees([one, two], ['one', 'two']);
  await until('both to be saved', () => !one.hasUnsyncedChanges() && !two.hasUnsyncedChanges());
  one.detach();
  two.type('!');
  await until('the other to be saved', () => !two.hasUnsyncedChanges());
  await sees([two], ['two']);
  expect(await cat(door, { document: 'twice' })).toBe('one two!');
});
