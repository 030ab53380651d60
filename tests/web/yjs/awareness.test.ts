// Cursors: they appear for everybody, and vanish when their people do.

import { describe, expect } from 'vitest';
import { HOCUSPOCUSES, KINDS } from '../src/participant.ts';
import { stays, until } from '../src/wait.ts';
import { offline, sees, synced, test } from '../src/world.ts';

/** A provider of another kind, which looks on. */
const other = (kind: string): (typeof KINDS)[number] =>
  kind === 'y-websocket' ? 'hocuspocus' : 'y-websocket';

/** What "at once" means here: far below the 30 s after which a client forgets a silent cursor. */
const AT_ONCE_MS = 3_000;

test('everybody sees everybody, through all doors', async ({ world }) => {
  const { door } = await world.server();
  const all = KINDS.map((kind) => world.open(door, { kind, document: 'crowd', user: kind }));
  await synced(...all);
  await sees(all, KINDS);
  const late = await world.join(door, { kind: 'y-websocket', document: 'crowd', user: 'late' });
  await sees([...all, late], [...KINDS, 'late']);
});

describe.each(KINDS)('%s', (kind) => {
  test('a cursor moves for others', async ({ world }) => {
    const { door } = await world.server();
    const here = await world.join(door, { kind, document: 'move', user: 'one' });
    const there = await world.join(door, { kind: other(kind), document: 'move', user: 'other' });
    await sees([here, there], ['one', 'other']);
    for (const name of ['two', 'three', 'four']) {
      here.setUser(name);
      await sees([here, there], [name, 'other'], AT_ONCE_MS);
    }
  });

  test('setLocalState(null) reaches others at once, and a new state after it', async ({
    world,
  }) => {
    const { door } = await world.server();
    const here = await world.join(door, { kind, document: 'null', user: 'here' });
    const there = await world.join(door, { kind: other(kind), document: 'null', user: 'there' });
    await sees([here, there], ['here', 'there']);
    here.setUser(null);
    await sees([there], ['there'], AT_ONCE_MS);
    here.setUser('again');
    await sees([here, there], ['again', 'there'], AT_ONCE_MS);
  });

  test('the cursor vanishes on disconnect and is back on connect', async ({ world }) => {
    const { door } = await world.server();
    const here = await world.join(door, { kind, document: 'leave', user: 'here' });
    const there = await world.join(door, { kind: other(kind), document: 'leave', user: 'there' });
    await sees([here, there], ['here', 'there']);
    await offline(here);
    await sees([there], ['there'], AT_ONCE_MS);
    here.connect();
    await synced(here);
    await sees([here, there], ['here', 'there']);
  });

  test('the cursor vanishes when the process is killed', async ({ world }) => {
    const { door } = await world.server();
    const far = await world.far(door, { kind, document: 'kill', user: 'far' });
    await synced(far.participant);
    const there = await world.join(door, { kind: other(kind), document: 'kill', user: 'there' });
    await sees([far.participant, there], ['far', 'there']);
    await far.kill();
    await sees([there], ['there'], AT_ONCE_MS);
  });

  test('two documents do not see the cursors of each other', async ({ world }) => {
    const { door } = await world.server();
    const one = await world.join(door, { kind, document: 'one', user: 'one' });
    const two = await world.join(door, { kind, document: 'two', user: 'two' });
    const three = await world.join(door, { kind, document: 'two', user: 'three' });
    await sees([two, three], ['two', 'three']);
    await stays('alone', () => one.users().join() === 'one', 300);
  });
});

describe.each(HOCUSPOCUSES)('%s', (kind) => {
  test('leaving one document of a socket takes away the cursor there only', async ({ world }) => {
    const { door } = await world.server();
    const socket = world.socket(door, kind);
    const [a, b] = ['a', 'b'].map((document) =>
      world.open(door, { kind, document, user: 'me' }, socket),
    );
    const others = ['a', 'b'].map((document) =>
      world.open(door, { kind: 'y-websocket', document, user: 'other' }),
    );
    const [otherA, otherB] = others;
    if (a === undefined || b === undefined || otherA === undefined || otherB === undefined)
      throw new Error('opened');
    await synced(a, b, ...others);
    await sees(others, ['me', 'other']);
    a.detach();
    await sees([otherA], ['other'], AT_ONCE_MS);
    await stays('still there', () => otherB.users().join() === 'me,other', 300);
    b.type('still');
    await until('the edit in the other document', () => otherB.text() === 'still');
    expect(b.connected()).toBe(true);
  });

  test('an application without awareness sees no cursors and edits', async ({ world }) => {
    const { door } = await world.server();
    const here = await world.join(door, { kind, document: 'without', awareness: false });
    const there = await world.join(door, {
      kind: 'y-websocket',
      document: 'without',
      user: 'there',
    });
    here.type('edit');
    await until('the edit', () => there.text() === 'edit');
    expect(there.users()).toEqual(['there']);
  });
});
