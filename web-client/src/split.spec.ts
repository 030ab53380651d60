// Parts of an update: each complete after those before it, and together the whole.
import { describe, expect, it } from 'vitest';
import * as Y from 'yjs';
import { splitUpdate } from './split.js';

/** Random numbers that are the same for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
}

/** A document that three clients have worked on, seeing each other's edits now and then. */
function randomDoc(seed: number): Y.Doc {
  const random = randomOf(seed);
  const docs = [1, 2, 3].map((client) => {
    const doc = new Y.Doc();
    doc.clientID = client * 1000 + seed;
    return doc;
  });
  for (let i = 0; i < 150; i++) {
    const doc = docs[random(3)] as Y.Doc;
    const text = doc.getText('text');
    const map = doc.getMap('map');
    switch (random(8)) {
      case 0:
        if (text.length > 3) text.delete(random(text.length - 3), 1 + random(3));
        break;
      case 1:
        map.set(`k${random(5)}`, { a: 'x'.repeat(random(40)) });
        break;
      case 2:
        map.set(`n${random(3)}`, new Y.Array());
        break;
      case 3: {
        const nested = map.get(`n${random(3)}`);
        if (nested instanceof Y.Array) nested.insert(random(nested.length + 1), [1, 'two', null]);
        break;
      }
      case 4:
        if (text.length > 2) text.format(0, 1 + random(text.length - 1), { bold: true });
        break;
      case 5:
        for (const other of docs) Y.applyUpdate(doc, Y.encodeStateAsUpdate(other));
        break;
      default:
        text.insert(random(text.length + 1), 'na\u00efve \u{1F600}'.repeat(1 + random(6)));
    }
  }
  const whole = docs[0] as Y.Doc;
  for (const other of docs) Y.applyUpdate(whole, Y.encodeStateAsUpdate(other));
  return whole;
}

/** Applies parts one after the other; each has to be complete. */
function applyAll(target: Y.Doc, parts: readonly Uint8Array[]): void {
  for (const part of parts) {
    Y.applyUpdate(target, part);
    expect(target.store.pendingStructs).toBeNull();
    expect(target.store.pendingDs).toBeNull();
  }
}

function content(doc: Y.Doc): unknown {
  return [doc.getText('text').toDelta(), doc.getMap('map').toJSON()];
}

describe('splitUpdate', () => {
  it('gives parts that are complete in their order and no larger than asked', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const whole = randomDoc(seed);
      for (const bytesMax of [256, 700, 3000]) {
        const parts = splitUpdate(Y.encodeStateAsUpdate(whole), bytesMax);
        if (parts === undefined) throw new Error(`seed ${seed} at ${bytesMax} has no parts`);
        expect(Math.max(...parts.map((part) => part.length))).toBeLessThanOrEqual(bytesMax);
        const copy = new Y.Doc();
        applyAll(copy, parts);
        expect(content(copy)).toEqual(content(whole));
        expect(Y.encodeStateVector(copy)).toEqual(Y.encodeStateVector(whole));
      }
    }
  });

  it('divides a difference to what somebody has', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const whole = randomDoc(seed);
      const other = new Y.Doc();
      Y.applyUpdate(other, Y.encodeStateAsUpdate(whole));
      const text = whole.getText('text');
      for (let i = 0; i < 200; i++) text.insert((i * 7) % (text.length + 1), `word ${i} `);
      text.delete(0, 50);
      const update = Y.encodeStateAsUpdate(whole, Y.encodeStateVector(other));
      const parts = splitUpdate(update, 600) ?? [];
      expect(parts.length).toBeGreaterThan(2);
      applyAll(other, parts);
      expect(content(other)).toEqual(content(whole));
    }
  });

  it('divides one long paste without breaking a character', () => {
    const doc = new Y.Doc();
    const pasted = 'ab\u{1F600}'.repeat(5000);
    doc.getText('text').insert(0, pasted);
    const parts = splitUpdate(Y.encodeStateAsUpdate(doc), 1001) ?? [];
    expect(Math.max(...parts.map((part) => part.length))).toBeLessThanOrEqual(1001);
    const copy = new Y.Doc();
    applyAll(copy, parts);
    expect(copy.getText('text').toString() === pasted).toBe(true);
  });

  it('says so when a piece has no middle', () => {
    const doc = new Y.Doc();
    doc.getMap('map').set('image', new Uint8Array(5000));
    expect(splitUpdate(Y.encodeStateAsUpdate(doc), 1000)).toBeUndefined();
  });
});
