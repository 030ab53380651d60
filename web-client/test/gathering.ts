// Several people at one document, and the document that Yjs makes of the same updates. What they have in the
// end, what a newcomer is sent, and what there is after a `kill -9` have to be that document.
import { expect } from 'vitest';
import * as Y from 'yjs';
import { CowriteProvider } from '../src/index.js';
import type { Random } from './random.js';
import { TestServer, until } from './server.js';

/** So small that the log of a program has checkpoints and updates after them. */
const CHECKPOINT_UPDATES = 40;
/** How long everybody may take to have everything, in milliseconds. */
const CONVERGED_WITHIN = 30_000;

/** Somebody who edits. Being offline is `disconnect` and `connect` of the provider. */
export interface Person {
  readonly doc: Y.Doc;
  readonly provider: CowriteProvider;
}

/** The people at one document, on a server of their own. */
export class Gathering {
  /** What Yjs makes of all updates that were made. */
  readonly reference: Y.Doc;
  private readonly people: Person[] = [];
  private readonly complaints: string[] = [];
  private readonly cleanups: (() => void)[] = [];

  private constructor(
    private readonly server: TestServer,
    private readonly document: string,
    private readonly random: Random,
  ) {
    this.reference = new Y.Doc({ gc: random.below(3) !== 0 });
    this.reference.clientID = random.below(2 ** 32);
  }

  static async start(document: string, random: Random): Promise<Gathering> {
    const settings = { 'room.checkpoint_updates': CHECKPOINT_UPDATES };
    return new Gathering(await TestServer.start(settings), document, random);
  }

  /** Somebody who edits comes, and is in sync. */
  async join(): Promise<Person> {
    const person = this.open(this.random.below(2) === 0, this.random.below(2 ** 32));
    this.people.push(person);
    person.doc.on('update', (update: Uint8Array, origin: unknown) => {
      if (origin !== person.provider && origin !== this.reference) {
        Y.applyUpdate(this.reference, update, person);
      }
    });
    await person.provider.whenSynced();
    return person;
  }

  /** Something that ends before the people go. */
  defer(cleanup: () => void): void {
    this.cleanups.push(cleanup);
  }

  /**
   * Everybody comes back, and has the reference; a newcomer as well, and another one after the server was
   * killed and has read its log. `content` is what has to be the same, beside the structs.
   */
  async ends(content: (doc: Y.Doc) => unknown): Promise<void> {
    for (const { provider } of this.people) provider.connect();
    await Promise.all(this.people.map(({ provider }) => provider.whenSaved()));
    await until('everybody has everything', () => this.settled(this.people), CONVERGED_WITHIN);
    const newcomer = await this.newcomer();
    const expected = content(this.reference);
    for (const { doc } of [...this.people, newcomer]) this.same(doc, content, expected);
    await this.noComplaints();
    this.leave();
    await this.server.kill();
    await this.server.start();
    this.same((await this.newcomer()).doc, content, expected);
    await this.noComplaints();
  }

  /** Ends everything, also in the middle. */
  async dispose(): Promise<void> {
    try {
      this.leave();
    } finally {
      await this.server.dispose();
    }
  }

  private leave(): void {
    for (const cleanup of this.cleanups.splice(0)) cleanup();
    for (const { provider, doc } of this.people.splice(0)) {
      provider.destroy();
      doc.destroy();
    }
  }

  private open(gc: boolean, clientId?: number): Person {
    const doc = new Y.Doc({ gc });
    // A program is the same again only if its clients are: their ids order what is typed at one place.
    if (clientId !== undefined) doc.clientID = clientId;
    const provider = new CowriteProvider(doc, { url: this.server.url, document: this.document });
    provider.on('closed', ({ reason, message, permanent }) => {
      if (permanent || reason !== 'UNSPECIFIED') {
        this.complaints.push(`closed: ${reason} ${message}`);
      }
    });
    provider.on('error', (error) => this.complaints.push(`error: ${error.message}`));
    return { doc, provider };
  }

  /** Somebody who only reads, and has everything. */
  private async newcomer(): Promise<Person> {
    const person = this.open(this.random.below(2) === 0);
    this.defer(() => {
      person.provider.destroy();
      person.doc.destroy();
    });
    await person.provider.whenSynced();
    await until(
      'a newcomer has everything',
      () => this.settled([...this.people, person]),
      CONVERGED_WITHIN,
    );
    return person;
  }

  private settled(people: readonly Person[]): boolean {
    if (this.complaints.length > 0) throw new Error(this.complaints.join('\n'));
    const known = Y.encodeStateVector(this.reference);
    // Yjs deletes marks that have become redundant wherever it notices: in the reference too, whose
    // deletions nobody else has.
    const [first] = this.people;
    if (first && Buffer.compare(known, Y.encodeStateVector(first.doc)) === 0) {
      Y.applyUpdate(first.doc, Y.encodeStateAsUpdate(this.reference, known), this.reference);
    }
    return people.every(({ doc }) => equal(doc, this.reference));
  }

  private same(doc: Y.Doc, content: (doc: Y.Doc) => unknown, expected: unknown): void {
    expect(stateVector(doc)).toEqual(stateVector(this.reference));
    if (!hasInverted(this.reference)) expect(content(doc)).toEqual(expected);
  }

  /** Neither a client nor the server found fault with anything. */
  private async noComplaints(): Promise<void> {
    expect(this.complaints).toEqual([]);
    expect(await complaints(this.server)).toEqual([]);
  }
}

/** What a server has counted that it does not count when everything is legal. */
export async function complaints(server: TestServer): Promise<string[]> {
  const names =
    /^cowrite_(room_refused|room_restarts|room_checkpoint_mismatches|sessions_closed|log_append_failures)_total|^cowrite_(rooms_quarantined|log_corrupt_documents)\b/;
  const samples = [...(await server.metrics())];
  return samples
    .filter(([name, value]) => names.test(name) && value > 0)
    .map(([name, value]) => `${name} ${value}`);
}

/** The same structs, and the same of them deleted. */
export function equal(a: Y.Doc, b: Y.Doc): boolean {
  return Y.equalSnapshots(Y.snapshot(a), Y.snapshot(b));
}

/**
 * Whether there is an item whose left neighbour is not to the left of its right one. `UndoManager` of Yjs
 * 13.6.33 makes such items when it brings back a text that is in another type. Where they are is not
 * defined: copies of Yjs that have the same structs then show different texts.
 */
export function hasInverted(doc: Y.Doc): boolean {
  const pending: Pick<Y.AbstractType<never>, '_start' | '_map'>[] = [...doc.share.values()];
  for (let type = pending.pop(); type !== undefined; type = pending.pop()) {
    const place = new Map<string, number>();
    const items: Y.Item[] = [];
    for (let item = type._start; item !== null; item = item.right) {
      items.push(item);
      for (let i = 0; i < item.length; i++) {
        place.set(`${item.id.client}.${item.id.clock + i}`, place.size);
      }
    }
    const of = (id: Y.ID | null) => id && place.get(`${id.client}.${id.clock}`);
    for (const { origin, rightOrigin } of items) {
      const [left, right] = [of(origin), of(rightOrigin)];
      if (typeof left === 'number' && typeof right === 'number' && left >= right) return true;
    }
    for (const { content } of [...items, ...type._map.values()]) {
      if (content instanceof Y.ContentType) pending.push(content.type);
    }
  }
  return false;
}

/** Clocks by client, in the order of the clients. */
export function stateVector(doc: Y.Doc): [number, number][] {
  const clocks = [...Y.decodeStateVector(Y.encodeStateVector(doc))];
  return clocks.sort(([a], [b]) => a - b);
}

/** What a shared type holds, with the marks of its texts. */
export function plain(type: unknown): unknown {
  if (type instanceof Y.Text) return { text: type.toDelta().map(plainInsert) };
  if (type instanceof Y.XmlElement) {
    return {
      element: type.nodeName,
      attributes: Object.fromEntries(
        Object.entries(type.getAttributes()).map(([name, value]) => [name, plain(value)]),
      ),
      children: type.toArray().map(plain),
    };
  }
  if (type instanceof Y.XmlFragment) return { fragment: type.toArray().map(plain) };
  if (type instanceof Y.Array) return { array: type.toArray().map(plain) };
  if (type instanceof Y.Map) {
    const entries = [...type.entries()].sort(([a], [b]) => (a < b ? -1 : 1));
    return { map: entries.map(([key, value]) => [key, plain(value)]) };
  }
  if (type instanceof Y.Doc) return { document: type.guid };
  return type;
}

function plainInsert(part: { insert: unknown; attributes?: unknown }): unknown {
  return { insert: plain(part.insert), attributes: part.attributes ?? {} };
}
