// What is sent, and when it counts as durable.
import { beforeEach, expect, it } from 'vitest';
import * as Y from 'yjs';
import { PART_BYTES, Unconfirmed } from './unconfirmed.js';

const LIMITS = { updateBytesMax: 1 << 20, messageBytesMax: 4 << 20 };

let doc: Y.Doc;
let edits: Unconfirmed;

beforeEach(() => {
  doc = new Y.Doc();
  edits = new Unconfirmed((since) =>
    Y.encodeStateAsUpdate(
      doc,
      since instanceof Uint8Array ? since : Y.encodeStateVector(new Map(since)),
    ),
  );
  doc.on('update', (update: Uint8Array, _origin: unknown, _doc: Y.Doc, tr: Y.Transaction) =>
    edits.edited(update, tr.beforeState, 0),
  );
});

function type(text: string): void {
  doc.getText('t').insert(doc.getText('t').length, text);
}

function begin(base = new Y.Doc(), limits = LIMITS): void {
  edits.sessionBegan(Y.encodeStateVector(base), limits);
}

/** Takes everything, message by message. */
function takeAll(): Uint8Array[][] {
  const messages: Uint8Array[][] = [];
  while (edits.wantsToSend(0)) messages.push(edits.take(0).map(({ update }) => update));
  return messages;
}

it('an edit is unconfirmed until its acknowledgement', () => {
  begin();
  type('1');
  edits.take(0);
  type('2');
  edits.take(0);
  edits.acknowledged(1n);
  expect(edits.edits).toBe(1);
  edits.acknowledged(2n);
  expect(edits.edits).toBe(0);
});

it('an acknowledgement of the parts before the last one confirms nothing', () => {
  type('x'.repeat(3 * PART_BYTES));
  begin();
  const parts = takeAll().flat();
  expect(parts.length).toBeGreaterThan(3);
  edits.acknowledged(BigInt(parts.length - 1));
  expect(edits.edits).toBe(1);
  edits.acknowledged(BigInt(parts.length));
  expect(edits.edits).toBe(0);
});

it('no message is larger than a part, and no update than the server takes', () => {
  type('\u20ac'.repeat(PART_BYTES));
  begin(new Y.Doc(), { updateBytesMax: 1024, messageBytesMax: 8192 });
  const messages = takeAll();
  for (const updates of messages) {
    const sizes = updates.map((update) => update.length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1024);
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(4096);
  }
  const copy = new Y.Doc();
  for (const update of messages.flat()) Y.applyUpdate(copy, update);
  expect(copy.getText('t').length).toBe(PART_BYTES);
});

it('content without a middle that is too large is refused here, and the rest stays unsaved', () => {
  begin(new Y.Doc(), { updateBytesMax: 1024, messageBytesMax: 8192 });
  doc.getMap('m').set('image', new Uint8Array(5000));
  expect(takeAll()).toEqual([[]]);
  type('after');
  expect(edits.refusal?.reason).toBe('UPDATE_TOO_LARGE');
  expect(edits.edits).toBe(2);
});

it('many edits that wait are merged and none is lost', () => {
  begin();
  for (let i = 0; i < 1000; i++) type(String(i % 10));
  const messages = takeAll();
  expect(messages).toHaveLength(1);
  const copy = new Y.Doc();
  for (const update of messages.flat()) Y.applyUpdate(copy, update);
  expect(copy.getText('t').toString()).toBe(doc.getText('t').toString());
});

it('after a refusal everything since the last state that the server has is sent again', () => {
  begin();
  type('saved ');
  edits.take(0);
  edits.acknowledged(1n);
  const server = new Y.Doc();
  Y.applyUpdate(server, Y.encodeStateAsUpdate(doc));
  type('refused ');
  edits.take(0);
  type('after');
  edits.take(0);
  edits.refused(2n, { reason: 'LOG_FULL', message: '' }, 1000, 0);
  // What depended on it may have been taken or not.
  edits.acknowledged(3n);
  expect([edits.edits, edits.wantsToSend(999), edits.retryAt]).toEqual([2, false, 1000]);
  const [again] = edits.take(1000);
  Y.applyUpdate(server, again?.update ?? new Uint8Array());
  expect(server.getText('t').toString()).toBe('saved refused after');
  // And no more than that: it is nothing without what was acknowledged before.
  const empty = new Y.Doc();
  Y.applyUpdate(empty, again?.update ?? new Uint8Array());
  expect(empty.getText('t').toString()).toBe('');
  edits.acknowledged(4n);
  expect([edits.edits, edits.refusal]).toEqual([0, undefined]);
});

it('with nothing to send after all, nothing is unsaved', () => {
  edits.unknown(0);
  begin();
  expect([edits.edits, edits.take(0), edits.edits]).toEqual([1, [], 0]);
});
