// Sessions of two people that were recorded, or made up where no recording is at hand.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import * as Y from 'yjs';
import type { Typed } from './own-page.ts';
import { ROOT } from './process.ts';

/** The form of `concurrent_traces` in the repository josephg/editing-traces. */
interface Trace {
  readonly endContent: string;
  readonly txns: readonly {
    readonly parents: readonly number[];
    readonly agent: number;
    /** Where, how many are deleted, what is inserted; in Unicode code points. */
    readonly patches: readonly (readonly [number, number, string])[];
  }[];
}

/** What two people typed, as edits for one document. */
export interface Recording {
  readonly name: string;
  /** For each person, in the order in which they were made. */
  readonly edits: readonly [readonly Typed[], readonly Typed[]];
  /** The text in the end. */
  readonly end: string;
}

/** The client ids of the two: they decide about edits at one place, as the recording has it. */
export const CLIENTS = [1, 2] as const;

const FILE = 'friendsforever.json.gz';

/** The recording of two people, if it is here, else a shorter one that a program made. */
export function recording(): Recording {
  const directory = process.env['COWRITE_TRACES'] ?? join(ROOT, '../shared/traces');
  const file = join(directory, FILE);
  if (!existsSync(file)) return invented();
  return recorded(JSON.parse(gunzipSync(readFileSync(file)).toString('utf8')) as Trace);
}

/** One person of a session, with exactly what that person has seen. */
class Author {
  readonly edits: Typed[] = [];
  readonly doc = new Y.Doc();
  readonly updates: Uint8Array[] = [];
  readonly #other: number;
  seen = 0;

  constructor(client: number, other: number) {
    this.doc.clientID = client;
    this.#other = other;
  }

  get text(): Y.Text {
    return this.doc.getText('content');
  }

  /** Sees what the other has made, up to a number. */
  see(other: Author, count: number): void {
    for (; this.seen < count; this.seen += 1) {
      const update = other.updates[this.seen];
      if (update !== undefined) Y.applyUpdate(this.doc, update);
    }
  }

  /** Makes an edit. */
  edit(make: (text: Y.Text) => void): void {
    const seen = { client: this.#other, clock: Y.getState(this.doc.store, this.#other) };
    const before = Y.encodeStateVector(this.doc);
    let update = new Uint8Array();
    const keep = (made: Uint8Array): void => {
      update = new Uint8Array(made);
    };
    this.doc.on('update', keep);
    this.doc.transact(() => make(this.text));
    this.doc.off('update', keep);
    if (update.length === 0) update = new Uint8Array(Y.encodeStateAsUpdate(this.doc, before));
    this.updates.push(update);
    this.edits.push({ update: Buffer.from(update).toString('base64'), seen });
  }
}

function authors(): readonly [Author, Author] {
  return [new Author(CLIENTS[0], CLIENTS[1]), new Author(CLIENTS[1], CLIENTS[0])];
}

function recorded(trace: Trace): Recording {
  const both = authors();
  /** For each transaction: how many each author had made with it and before it. */
  const known: (readonly [number, number])[] = [];
  for (const { agent, parents, patches } of trace.txns) {
    const count: [number, number] = [0, 0];
    for (const parent of parents) {
      const before = known[parent] ?? [0, 0];
      for (const index of [0, 1] as const) count[index] = Math.max(count[index], before[index]);
    }
    const [author, other] = agent === 0 ? [both[0], both[1]] : [both[1], both[0]];
    author.see(other, count[agent === 0 ? 1 : 0]);
    author.edit((text) => {
      for (const [at, deleted, inserted] of patches) {
        // This recording has no characters outside the basic plane: code points are UTF-16 units.
        if (deleted > 0) text.delete(at, deleted);
        if (inserted !== '') text.insert(at, inserted);
      }
    });
    count[agent === 0 ? 0 : 1] += 1;
    known.push(count);
  }
  return {
    name: 'friendsforever',
    edits: [both[0].edits, both[1].edits],
    end: trace.endContent,
  };
}

/** Two people who type, go back, delete, and see each other's edits some time later. */
function invented(): Recording {
  const both = authors();
  const random = mulberry(2026);
  for (let step = 0; step < 6_000; step += 1) {
    const index = random() < 0.5 ? 0 : 1;
    const [author, other] = index === 0 ? [both[0], both[1]] : [both[1], both[0]];
    if (random() < 0.1) author.see(other, other.updates.length);
    author.edit((text) => {
      const at = Math.floor(random() * (text.length + 1));
      if (random() < 0.2 && at < text.length) text.delete(at, 1);
      else text.insert(at, String.fromCharCode(97 + Math.floor(random() * 26)));
    });
  }
  both[0].see(both[1], both[1].updates.length);
  return {
    name: 'invented (no recording is here: set COWRITE_TRACES)',
    edits: [both[0].edits, both[1].edits],
    end: both[0].text.toString(),
  };
}

/** A small generator of random numbers, always the same for a seed. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
