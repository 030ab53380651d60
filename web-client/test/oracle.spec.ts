// The server's CRDT against Yjs itself: random programs over every shared type, typed by several
// people who come and go. Every update that Yjs makes must be taken, and what a newcomer is sent,
// which the server encodes, must be the document that Yjs makes of the same updates.
//
// COWRITE_ORACLE_SEEDS is how many programs are run; a failure says how to have it again.
import { afterAll, beforeAll, describe, expect } from 'vitest';
import * as Y from 'yjs';
import { CowriteProvider } from '../src/index.js';
import { equal, hasInverted, plain } from './gathering.js';
import { Random, TEXTS, seeds } from './random.js';
import { TestServer, until } from './server.js';

const SEEDS = 24;
const PEOPLE = 3;
const STEPS = 120;

const MARKS = [{ bold: true }, { bold: null }, { italic: {} }, { link: { href: '/a?b=c' } }];
const VALUES: readonly unknown[] = [
  ...[null, true, false, 0, -1, 1.5, 2 ** 40, -(2 ** 53), '', 'text', '\u{1F680}'],
  ...[[1, [2, ['three']]], { a: { b: [null] } }, new Uint8Array([0, 255, 7])],
];

type Shared = Y.Text | Y.Array<unknown> | Y.Map<unknown> | Y.XmlFragment | Y.XmlElement | Y.XmlText;

function fresh(random: Random): Shared | Y.Doc {
  switch (random.below(6)) {
    case 0:
      return new Y.Text(random.pick(TEXTS));
    case 1:
      return Y.Array.from(['1', 'two']) as Y.Array<unknown>;
    case 2:
      return new Y.Map([['k', random.pick(VALUES)]]);
    case 3:
      return new Y.XmlElement(random.pick(['p', 'li', 'my-node']));
    case 4:
      return new Y.XmlText(random.pick(TEXTS));
    default:
      return new Y.Doc({ guid: `sub-${random.below(1000)}`, meta: { kind: 'sub' } });
  }
}

/** Every shared type that is reachable now. */
function reachable(doc: Y.Doc): Shared[] {
  const found: Shared[] = [
    doc.getText('text'),
    doc.getArray('array'),
    doc.getMap('map'),
    doc.getXmlFragment('xml'),
  ];
  for (let i = 0; i < found.length; i++) {
    const type = found[i];
    const inner: unknown[] = [];
    if (type instanceof Y.XmlFragment) inner.push(...type.toArray());
    else if (type instanceof Y.Array) inner.push(...type.toArray());
    else if (type instanceof Y.Map) inner.push(...type.values());
    for (const value of inner) {
      if (value instanceof Y.AbstractType && !(value instanceof Y.XmlHook))
        found.push(value as Shared);
    }
  }
  return found;
}

/**
 * Where in a text something can be inserted: not between the halves of a surrogate pair, where no
 * editor puts a cursor and Yjs replaces both halves.
 */
function gaps(text: Y.Text): number[] {
  let at = 0;
  const found = [at];
  for (const { insert } of text.toDelta() as { insert: unknown }[]) {
    for (const { length } of typeof insert === 'string' ? insert : ['.']) {
      at += length;
      found.push(at);
    }
  }
  return found;
}

function change(doc: Y.Doc, random: Random): void {
  const type = random.pick(reachable(doc));
  if (type instanceof Y.Text) {
    const between = gaps(type);
    const from = random.below(between.length);
    const at = between[from] ?? 0;
    const end = between[Math.min(between.length - 1, from + 1 + random.below(12))] ?? at;
    const length = end - at;
    switch (random.below(5)) {
      case 0:
        if (length > 0) type.delete(at, length);
        break;
      case 1:
        if (length > 0) type.format(at, length, random.pick(MARKS));
        break;
      case 2:
        type.insertEmbed(at, { image: random.pick(TEXTS) }, random.pick(MARKS));
        break;
      case 3:
        type.insert(at, random.pick(TEXTS), random.pick(MARKS));
        break;
      default:
        type.insert(at, random.pick(TEXTS));
    }
  } else if (type instanceof Y.XmlFragment) {
    const at = random.below(type.length + 1);
    const action = random.below(4);
    if (action === 0 && at < type.length) {
      type.delete(at, 1);
    } else if (action === 1 && type instanceof Y.XmlElement) {
      if (random.below(3) === 0) type.removeAttribute('class');
      else type.setAttribute(random.pick(['class', 'level']), random.pick(TEXTS));
    } else {
      const child =
        random.below(2) === 0 ? new Y.XmlText(random.pick(TEXTS)) : new Y.XmlElement('p');
      type.insert(at, [child]);
    }
  } else if (type instanceof Y.Array) {
    const at = random.below(type.length + 1);
    if (random.below(3) === 0 && at < type.length) {
      type.delete(at, 1 + random.below(Math.min(3, type.length - at)));
    } else {
      type.insert(at, [random.below(3) === 0 ? fresh(random) : random.pick(VALUES)]);
    }
  } else {
    const key = random.pick(['k', 'l', 'm', '\u{1F511}']);
    if (random.below(4) === 0) type.delete(key);
    else type.set(key, random.below(3) === 0 ? fresh(random) : random.pick(VALUES));
  }
}

/** What a document holds, with the marks of its texts. */
function content(doc: Y.Doc): unknown {
  return [
    doc.getText('text'),
    doc.getArray('array'),
    doc.getMap('map'),
    doc.getXmlFragment('xml'),
  ].map(plain);
}

let server: TestServer;

beforeAll(async () => {
  server = await TestServer.start();
});

afterAll(() => server.dispose());

describe('the server makes of updates what Yjs makes of them', () => {
  seeds('oracle.spec.ts', 'shared types', SEEDS, async (seed) => {
    const random = new Random(seed);
    const document = `oracle/${seed}`;
    const complaints: string[] = [];
    const reference = new Y.Doc({ gc: seed % 3 !== 0 });
    const open = (gc: boolean): CowriteProvider => {
      const doc = new Y.Doc({ gc });
      const provider = new CowriteProvider(doc, { url: server.url, document });
      provider.on('closed', ({ reason, message, permanent }) => {
        if (permanent) complaints.push(`closed: ${reason} ${message}`);
      });
      provider.on('error', (error) => complaints.push(`error: ${error.message}`));
      return provider;
    };
    const people = Array.from({ length: PEOPLE }, () => open(random.below(2) === 0));
    try {
      await Promise.all(people.map((person) => person.whenSynced()));
      const undos = people.map(({ doc }) => {
        const scope = [doc.getText('text'), doc.getArray('array'), doc.getXmlFragment('xml')];
        return new Y.UndoManager(scope, { captureTimeout: 0 });
      });
      for (const { doc } of people) {
        doc.on('update', (update: Uint8Array, origin: unknown) => {
          if (!(origin instanceof CowriteProvider) && origin !== reference) {
            Y.applyUpdate(reference, update, doc);
          }
        });
      }
      for (let step = 0; step < STEPS; step++) {
        const who = random.below(PEOPLE);
        const person = people[who];
        const undo = undos[who];
        if (person === undefined || undo === undefined) throw new Error('nobody');
        const action = random.below(20);
        if (action === 0) person.disconnect();
        else if (action === 1) person.connect();
        else if (action === 2) undo.undo();
        else if (action === 3) undo.redo();
        else if (action < 8) {
          person.doc.transact(() => {
            for (let i = random.below(8); i >= 0; i--) change(person.doc, random);
          });
        } else change(person.doc, random);
        if (random.below(6) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      for (const person of people) person.connect();
      await Promise.all(people.map((person) => person.whenSaved()));
      const same = (): boolean => {
        const [first] = people;
        const known = first && Y.encodeStateVector(first.doc);
        // Yjs deletes marks that have become redundant wherever it notices: in the reference too.
        if (known && Buffer.compare(known, Y.encodeStateVector(reference)) === 0) {
          Y.applyUpdate(first.doc, Y.encodeStateAsUpdate(reference, known), reference);
        }
        return people.every(({ doc }) => equal(doc, reference));
      };
      await until('everybody has everything', same);
      const newcomer = open(true);
      people.push(newcomer);
      await newcomer.whenSynced();
      await until('a newcomer has everything', same);
      const expected = content(reference);
      if (!hasInverted(reference)) {
        for (const { doc } of people) expect(content(doc)).toEqual(expected);
      }
      expect(complaints).toEqual([]);
    } finally {
      for (const person of people) person.destroy();
    }
  });
});
