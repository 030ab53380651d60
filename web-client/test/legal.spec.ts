// What Yjs may make and seldom does. Each update goes to the server as it is, without a client that makes
// another of it, and has to be taken; a newcomer, also after a `kill -9`, has to get the document that Yjs
// makes of the same updates.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as Y from 'yjs';
import { equal, complaints, plain, stateVector } from './gathering.js';
import { Random } from './random.js';
import { TestServer, until } from './server.js';
import { RawSession } from './raw-session.js';
import { CowriteProvider } from '../src/index.js';

let server: TestServer;
let sessions: RawSession[] = [];
/** Sessions that were ended for an update that was not complete. */
let incomplete = 0;

beforeEach(async () => {
  incomplete = 0;
  server = await TestServer.start({ 'room.checkpoint_updates': 40 });
});

afterEach(async () => {
  for (const session of sessions.splice(0)) session.leave();
  await server.dispose();
});

async function open(): Promise<RawSession> {
  const session = await RawSession.open(server.url, 'legal');
  sessions.push(session);
  return session;
}

/** Sends updates one after the other, without waiting in between: all are acknowledged. */
async function sends(...updates: readonly Uint8Array[]): Promise<void> {
  const session = await open();
  await Promise.all(updates.map((update) => session.send(update)));
}

/** The contract of ClientUpdate: an update depends only on what the server has or what is in it. */
async function refusedAsIncomplete(update: Uint8Array): Promise<void> {
  const session = await RawSession.open(server.url, 'legal');
  await expect(session.send(update)).rejects.toThrow('INCOMPLETE_UPDATE');
  incomplete += 1;
}

/** A newcomer is sent `reference`, before and after the server is killed. */
async function holds(reference: Y.Doc, content: (doc: Y.Doc) => unknown): Promise<void> {
  await newcomerHas(reference, content);
  const ended = `cowrite_sessions_closed_total{reason="incomplete_update"} ${incomplete}`;
  expect(await complaints(server)).toEqual(incomplete > 0 ? [ended] : []);
  for (const session of sessions.splice(0)) session.leave();
  await server.kill();
  await server.start();
  await newcomerHas(reference, content);
  expect(await complaints(server)).toEqual([]);
}

async function newcomerHas(reference: Y.Doc, content: (doc: Y.Doc) => unknown): Promise<void> {
  const doc = new Y.Doc();
  const provider = new CowriteProvider(doc, { url: server.url, document: 'legal' });
  try {
    await provider.whenSynced();
    await until('the newcomer has everything', () => equal(doc, reference));
    expect(content(doc)).toEqual(content(reference));
    expect(stateVector(doc)).toEqual(stateVector(reference));
  } finally {
    provider.destroy();
  }
}

/** Each update of a document, as it is made. */
function recorded(doc: Y.Doc): Uint8Array[] {
  const updates: Uint8Array[] = [];
  doc.on('update', (update: Uint8Array) => updates.push(update));
  return updates;
}

/** What Yjs makes of updates. */
function made(updates: readonly Uint8Array[]): Y.Doc {
  const doc = new Y.Doc();
  for (const update of updates) Y.applyUpdate(doc, update);
  return doc;
}

const map = (doc: Y.Doc) => plain(doc.getMap('map'));
const text = (doc: Y.Doc) => plain(doc.getText('text'));
const array = (doc: Y.Doc) => plain(doc.getArray('array'));
const xml = (doc: Y.Doc) => plain(doc.getXmlFragment('xml'));

describe('content that is seldom', () => {
  it('maps in maps, 30 deep, filled from within and from without', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    let inner = doc.getMap<unknown>('map');
    for (let depth = 0; depth < 30; depth++) {
      const next = new Y.Map<unknown>();
      inner.set('below', next);
      next.set('depth', depth);
      inner = next;
    }
    const whole = new Y.Map<unknown>([['bottom', true]]);
    doc.getMap('map').set(
      'at once',
      Array.from({ length: 30 }).reduce<Y.Map<unknown>>(
        (below) => new Y.Map<unknown>([['below', below]]),
        whole,
      ),
    );
    inner.set('depth', 'last');
    await sends(...updates);
    await holds(doc, map);
  });

  it('texts with embeds, marks of every kind, and marks that are null', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getText('text');
    type.insert(0, 'plain');
    type.insert(2, 'bold', { bold: true });
    type.insert(4, 'null', { bold: null, never: null });
    type.insertEmbed(3, { image: '/a.png', at: [1, { x: null }] }, { width: 1.5 });
    type.insertEmbed(0, new Y.Map([['kind', 'shared']]));
    type.insertEmbed(1, new Y.XmlText('inner'));
    type.format(0, type.length, { link: { href: '/', rel: [] }, bold: null });
    type.format(1, 4, { link: null, '': '', 'key with "quotes"': '"' });
    type.applyDelta([
      { retain: 3, attributes: { bold: true } },
      { delete: 2 },
      { insert: { formula: 'e=mc²' } },
      { insert: '\n', attributes: { list: 'ordered' } },
    ]);
    type.setAttribute('language', { tag: 'de' });
    await sends(...updates);
    await holds(doc, text);
  });

  it('elements whose attributes are objects, numbers, bytes and types', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const element = new Y.XmlElement<{ [key: string]: never }>('figure');
    doc.getXmlFragment('xml').insert(0, [element]);
    const attributes: Record<string, unknown> = {
      ...{ object: { a: [1, { b: null }] }, number: 1.5, yes: true, none: null, list: [] },
      ...{ bytes: new Uint8Array([0, 128, 255]), text: '', '': 'no name' },
    };
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value as never);
    }
    element.setAttribute('type', new Y.Map([['in', 'an attribute']]) as never);
    element.setAttribute('number', -(2 ** 53) as never);
    element.removeAttribute('yes');
    element.insert(0, [new Y.XmlText('caption')]);
    await sends(...updates);
    await holds(doc, xml);
  });

  it('bytes, numbers at their limits, and what is undefined', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getArray<unknown>('array');
    type.insert(0, [new Uint8Array(0), Uint8Array.from({ length: 100_000 }, (_, at) => at)]);
    type.insert(1, [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, NaN, Infinity, 5e-324]);
    type.insert(2, [null, { nothing: undefined }, [undefined]]);
    type.insert(3, [new Uint8Array([1]), 'between', new Uint8Array([2])]);
    type.delete(4, 2);
    await sends(...updates);
    await holds(doc, array);
  });

  it('the hook is refused: yrs has none, and the documentation says so', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const hook = new Y.XmlHook('hook');
    doc.getXmlFragment('xml').insert(0, [hook as unknown as Y.XmlElement]);
    const session = await RawSession.open(server.url, 'legal');
    await expect(session.send(updates[0] ?? new Uint8Array())).rejects.toThrow('MALFORMED_UPDATE');
  });

  // yrs reads both kinds of integers, and numbers that are whole, as one kind. Also in the documentation.
  it.fails.each([
    ['an integer of 64 bits', 2n ** 63n - 1n],
    ['a small integer of 64 bits', 1n],
    ['a zero with a sign', -0],
  ])('%s is another number when it comes back', async (_, value) => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    doc.getArray<unknown>('array').insert(0, [{ value }]);
    await sends(...updates);
    await newcomerHas(doc, array);
  });

  it('subdocuments: loaded at once, named, replaced and deleted', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getMap<unknown>('map');
    type.set('plain', new Y.Doc());
    type.set('named', new Y.Doc({ guid: 'a/b', autoLoad: true, meta: { kind: ['sub'] } }));
    type.set('named', new Y.Doc({ guid: 'a/b', gc: false, shouldLoad: false }));
    type.set('gone', new Y.Doc({ collectionid: 'collection' }));
    type.delete('gone');
    doc.getArray('array').insert(0, [new Y.Doc(), 1, new Y.Doc()]);
    await sends(...updates);
    await holds(doc, (doc) => [map(doc), array(doc)]);
  });

  it('a map with 5 000 keys, each written twice', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getMap('map');
    doc.transact(() => {
      for (let key = 0; key < 5_000; key++) type.set(`key ${key}`, key);
    });
    for (let key = 0; key < 50; key++) type.set(`key ${key}`, 'alone');
    doc.transact(() => {
      for (let key = 0; key < 5_000; key++) type.set(`key ${key}`, { again: key });
    });
    await sends(...updates);
    await holds(doc, map);
  });

  it('what UndoManager makes: a text comes back with neighbours that are one and the same', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const paragraphs = doc.getArray<Y.Text>('array');
    const undo = new Y.UndoManager(paragraphs, { captureTimeout: Number.MAX_SAFE_INTEGER });
    const text = new Y.Text('ABCD');
    paragraphs.insert(0, [text]);
    undo.stopCapturing();
    text.delete(2, 2);
    undo.undo();
    text.insert(3, 'ab');
    paragraphs.delete(0);
    paragraphs.insert(0, [new Y.Text('ABCD')]);
    undo.undo();
    const isBetweenOne = (struct: Y.Item | Y.GC | Y.Skip) =>
      struct instanceof Y.Item &&
      struct.origin !== null &&
      Y.compareIDs(struct.origin, struct.rightOrigin);
    const last = updates.at(-1) ?? new Uint8Array();
    expect(Y.decodeUpdate(last).structs.some(isBetweenOne)).toBe(true);
    await sends(...updates);
    // In which order Yjs shows such a text depends on how it came to know it, so only what there is counts.
    await holds(doc, (doc) => Y.encodeSnapshot(Y.snapshot(doc)));
    const letters = (doc: Y.Doc) =>
      [...(doc.getArray<Y.Text>('array').get(0)?.toJSON() ?? '')].sort();
    await newcomerHas(doc, letters);
  });

  it('a transaction that deletes what it made, and one that does nothing else', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    doc.transact(() => {
      doc.getText('text').insert(0, 'never seen');
      doc.getText('text').delete(0, 10);
      doc.getArray('array').insert(0, [new Y.Map([['a', new Y.Text('inside')]])]);
      doc.getArray('array').delete(0);
    });
    doc.getText('text').insert(0, 'seen');
    doc.getText('text').delete(0, 4);
    await sends(...updates, Y.encodeStateAsUpdate(new Y.Doc()));
    await holds(doc, (doc) => [text(doc), array(doc)]);
  });
});

describe('updates that Yjs makes of updates', () => {
  /** A text that is typed and erased, as one update for each edit. */
  function typed(random: Random, edits: number): { doc: Y.Doc; updates: Uint8Array[] } {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getText('text');
    for (let edit = 0; edit < edits; edit++) {
      const at = random.below(type.length + 1);
      if (random.below(4) === 0 && at < type.length) type.delete(at, 1);
      else type.insert(at, random.pick(['a', 'bc', 'naïve ', '漢字']));
    }
    return { doc, updates };
  }

  const some = (updates: readonly Uint8Array[], first: number, last = updates.length) =>
    updates.slice(first, last);

  it('merged ones', async () => {
    const { doc, updates } = typed(new Random(1), 60);
    await sends(
      Y.mergeUpdates(some(updates, 0, 20)),
      Y.mergeUpdates([...some(updates, 20, 40)].reverse()),
      Y.mergeUpdates(some(updates, 40)),
      // All of it again.
      Y.mergeUpdates(updates),
    );
    await holds(doc, text);
  });

  it('merged ones with a Skip over what the server has', async () => {
    const { doc, updates } = typed(new Random(2), 60);
    const merged = Y.mergeUpdates([...some(updates, 0, 10), ...some(updates, 30)]);
    expect(skips(merged)).toBeGreaterThan(0);
    const session = await open();
    await session.send(Y.mergeUpdates(some(updates, 0, 30)));
    await session.send(merged);
    await holds(doc, text);
  });

  it('merged ones with a Skip over what has not come: this door wants it first, and then takes them', async () => {
    const { doc, updates } = typed(new Random(3), 60);
    const merged = Y.mergeUpdates([...some(updates, 0, 10), ...some(updates, 30)]);
    expect(skips(merged)).toBeGreaterThan(0);
    await sends(Y.mergeUpdates(some(updates, 0, 10)));
    await refusedAsIncomplete(merged);
    await sends(Y.mergeUpdates(some(updates, 10, 30)), merged);
    await holds(doc, text);
  });

  it('those of another that come before what they need: again this door wants that first', async () => {
    const { doc, updates } = typed(new Random(4), 10);
    const other = made(updates);
    const more = recorded(other);
    other.getText('text').insert(3, 'of the other');
    other.getText('text').format(0, 6, { bold: true });
    await refusedAsIncomplete(more[0] ?? new Uint8Array());
    await sends(...updates, ...more);
    for (const update of more) Y.applyUpdate(doc, update);
    await holds(doc, text);
  });

  it('differences to what the server has, which begin within an item', async () => {
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getText('text');
    type.insert(0, 'one item ');
    const known = Y.encodeStateVectorFromUpdate(Y.mergeUpdates(updates));
    for (const character of 'that grows by each of these') type.insert(type.length, character);
    type.delete(4, 3);
    const whole = Y.encodeStateAsUpdate(doc);
    const difference = Y.diffUpdate(whole, known);
    expect(difference.length).toBeLessThan(whole.length);
    await sends(...some(updates, 0, 1), difference, Y.diffUpdate(whole, Y.encodeStateVector(doc)));
    await holds(doc, text);
  });

  it('differences of updates that have a Skip', async () => {
    const { doc, updates } = typed(new Random(5), 60);
    const known = Y.encodeStateVectorFromUpdate(Y.mergeUpdates(some(updates, 0, 20)));
    const merged = Y.mergeUpdates([...some(updates, 0, 22), ...some(updates, 40)]);
    const difference = Y.diffUpdate(merged, known);
    expect(skips(difference)).toBeGreaterThan(0);
    const session = await open();
    await session.send(Y.mergeUpdates(some(updates, 0, 40)));
    await session.send(difference);
    await holds(doc, text);
  });

  it('the state of a document that keeps what was deleted, and of one that does not', async () => {
    const kept = new Y.Doc({ gc: false });
    const type = kept.getText('text');
    kept.getMap('map').set('a', new Y.Array());
    for (let round = 0; round < 50; round++) {
      type.insert(type.length >> 1, `round ${round} `);
      type.delete(0, 3);
      kept.getMap<unknown>('map').set('a', new Y.Map([['round', round]]));
    }
    const collected = made([Y.encodeStateAsUpdate(kept)]);
    const structs = (update: Uint8Array) => Y.decodeUpdate(update).structs;
    const isCollected = (struct: unknown) => struct instanceof Y.GC;
    expect(structs(Y.encodeStateAsUpdate(collected)).some(isCollected)).toBe(true);
    expect(structs(Y.encodeStateAsUpdate(kept)).some(isCollected)).toBe(false);
    await sends(Y.encodeStateAsUpdate(collected), Y.encodeStateAsUpdate(kept));
    await holds(kept, (doc) => [text(doc), map(doc)]);
  });

  it('a document that was read from the second format, and one whose content was obfuscated', async () => {
    const { doc, updates } = typed(new Random(6), 40);
    const second = Y.convertUpdateFormatV2ToV1(Y.encodeStateAsUpdateV2(doc));
    const other = typed(new Random(7), 40);
    const obfuscated = Y.obfuscateUpdate(Y.mergeUpdates(other.updates));
    await sends(...some(updates, 0, 20), second, obfuscated);
    await holds(made([...updates, obfuscated]), text);
  });
});

describe('much at once', () => {
  it('3 000 small edits at random places, by two people who were offline', async () => {
    const start = new Y.Doc();
    start.getText('text').insert(0, 'what both have '.repeat(20));
    const state = Y.encodeStateAsUpdate(start);
    const people = [1, 2].map((seed) => {
      const random = new Random(seed);
      const doc = made([state]);
      const type = doc.getText('text');
      for (let edit = 0; edit < 1_500; edit++) {
        const at = random.below(type.length);
        if (random.below(3) === 0) type.delete(at, 1);
        else type.insert(at, random.pick(['a', 'b', '.']));
      }
      return doc;
    });
    await sends(state);
    const merged = made(people.map((doc) => Y.encodeStateAsUpdate(doc)));
    const differences = people.map((doc) =>
      Y.encodeStateAsUpdate(doc, Y.encodeStateVectorFromUpdate(state)),
    );
    await Promise.all(differences.map((difference) => sends(difference)));
    await holds(merged, text);
  });

  it('1 500 updates of one edit each, without a pause', async () => {
    const random = new Random(8);
    const doc = new Y.Doc();
    const updates = recorded(doc);
    const type = doc.getText('text');
    for (let edit = 0; edit < 1_500; edit++) {
      const at = random.below(type.length + 1);
      if (random.below(3) === 0 && at < type.length) type.delete(at, 1);
      else type.insert(at, 'x');
    }
    await sends(...updates);
    await holds(doc, text);
  });
});

function skips(update: Uint8Array): number {
  return Y.decodeUpdate(update).structs.filter((struct) => struct instanceof Y.Skip).length;
}
