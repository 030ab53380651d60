// Divides a Yjs update that is too large for one frame into parts that are complete one after the
// other: each depends only on what the server has and on the parts before it.
import * as encoding from 'lib0/encoding';
import * as Y from 'yjs';

type Struct = Y.Item | Y.GC;

/** Bytes of a part that are not structs: counts, and per client its id, its clock and its count. */
const PART_OVERHEAD = 32;
const CLIENT_OVERHEAD = 24;
/** Bytes of an item that are not content: its origins, its length. */
const ITEM_OVERHEAD = 64;
/** The largest encoding of a deleted range. */
const RANGE_BYTES = 16;

/**
 * Divides `update` into parts of at most `bytesMax` bytes. `undefined` when that cannot be done: a
 * single piece of content that has no middle is larger, or the update has a gap. What it refers to
 * and does not contain is taken to be on the server.
 */
export function splitUpdate(update: Uint8Array, bytesMax: number): Uint8Array[] | undefined {
  const { structs, ds } = Y.decodeUpdate(update);
  const room = bytesMax - PART_OVERHEAD - CLIENT_OVERHEAD;
  const clients = new Map<number, Struct[]>();
  for (const struct of structs) {
    const { client } = struct.id;
    if (struct instanceof Y.Skip) return undefined;
    const list = clients.get(client) ?? [];
    clients.set(client, list);
    const pieces = struct instanceof Y.Item ? divide(struct, room) : [struct];
    if (pieces === undefined) return undefined;
    list.push(...pieces);
  }
  const order = causalOrder(clients);
  if (order === undefined) return undefined;
  const parts: Uint8Array[] = [];
  let part = new Map<number, Struct[]>();
  let bytes = PART_OVERHEAD;
  const finish = () => {
    if (part.size > 0) parts.push(encodeStructs(part));
    part = new Map();
    bytes = PART_OVERHEAD;
  };
  for (const struct of order) {
    const size = structBytes(struct);
    const { client } = struct.id;
    if (bytes + size + (part.has(client) ? 0 : CLIENT_OVERHEAD) > bytesMax) finish();
    const list = part.get(client);
    if (list === undefined) {
      part.set(client, [struct]);
      bytes += size + CLIENT_OVERHEAD;
    } else {
      list.push(struct);
      bytes += size;
    }
  }
  finish();
  parts.push(...deletions(ds, bytesMax));
  return parts;
}

/** Structs in an order in which each comes after all that it refers to. */
function causalOrder(clients: ReadonlyMap<number, readonly Struct[]>): Struct[] | undefined {
  const order: Struct[] = [];
  const next = new Map<number, number>();
  const isMissing = (id: Y.ID): boolean => {
    const head = clients.get(id.client)?.[next.get(id.client) ?? 0];
    return head !== undefined && id.clock >= head.id.clock;
  };
  for (const start of clients.keys()) {
    const stack = [start];
    for (let client = stack.at(-1); client !== undefined; client = stack.at(-1)) {
      const at = next.get(client) ?? 0;
      const struct = clients.get(client)?.[at];
      if (struct === undefined) {
        stack.pop();
        continue;
      }
      const missing = dependencies(struct).find(isMissing);
      if (missing !== undefined) {
        // Nothing that Yjs makes refers to itself in a circle.
        if (stack.includes(missing.client)) return undefined;
        stack.push(missing.client);
        continue;
      }
      order.push(struct);
      next.set(client, at + 1);
      // One step for whoever waits for it; the rest of the client follows in its own turn.
      if (stack.length > 1) stack.pop();
    }
  }
  return order;
}

function dependencies(struct: Struct): Y.ID[] {
  if (!(struct instanceof Y.Item)) return [];
  const ids = [struct.origin, struct.rightOrigin];
  const parent: unknown = struct.parent;
  if (parent instanceof Y.ID) ids.push(parent);
  return ids.filter((id) => id !== null && id.client !== struct.id.client) as Y.ID[];
}

/** Pieces of an item of at most `bytesMax` bytes each. The item itself becomes the first. */
function divide(item: Y.Item, bytesMax: number): Y.Item[] | undefined {
  const pieces: Y.Item[] = [];
  const rest = [item];
  for (let piece = rest.pop(); piece !== undefined; piece = rest.pop()) {
    if (fits(piece, bytesMax)) {
      pieces.push(piece);
      continue;
    }
    const at = middle(piece.content, bytesMax);
    if (at === undefined) return undefined;
    const { client, clock } = piece.id;
    const right = new Y.Item(
      Y.createID(client, clock + at),
      null,
      Y.createID(client, clock + at - 1),
      null,
      piece.rightOrigin,
      null,
      null,
      piece.content.splice(at),
    );
    piece.length = at;
    rest.push(right, piece);
  }
  return pieces;
}

/** Without encoding where the length says it: a long paste is looked at once for each piece. */
function fits(item: Y.Item, bytesMax: number): boolean {
  if (item.content instanceof Y.ContentString) {
    // One to three bytes of UTF-8 to a unit of UTF-16.
    if (item.length > bytesMax) return false;
    if (item.length * 3 + ITEM_OVERHEAD <= bytesMax && item.parentSub === null) return true;
  }
  return structBytes(item) <= bytesMax;
}

/** Where to divide content, `undefined` for content that has no middle. */
function middle(content: Y.Item['content'], bytesMax: number): number | undefined {
  const length = content.getLength();
  if (length < 2) return undefined;
  if (content instanceof Y.ContentString) {
    const at = Math.max(1, Math.min(Math.floor((bytesMax - ITEM_OVERHEAD) / 3), length - 1));
    const unit = content.str.charCodeAt(at - 1);
    const betweenSurrogates = unit >= 0xd800 && unit < 0xdc00;
    if (!betweenSurrogates) return at;
    return at > 1 ? at - 1 : length > 2 ? at + 1 : undefined;
  }
  if (content instanceof Y.ContentAny || content instanceof Y.ContentJSON) return length >> 1;
  return undefined;
}

function structBytes(struct: Struct): number {
  const encoder = new Y.UpdateEncoderV1();
  struct.write(encoder, 0);
  return encoding.length(encoder.restEncoder);
}

function encodeStructs(clients: ReadonlyMap<number, readonly Struct[]>): Uint8Array {
  const encoder = new Y.UpdateEncoderV1();
  encoding.writeVarUint(encoder.restEncoder, clients.size);
  // Yjs writes clients from the highest id to the lowest.
  for (const [client, structs] of [...clients].sort(([a], [b]) => b - a)) {
    encoding.writeVarUint(encoder.restEncoder, structs.length);
    encoder.writeClient(client);
    encoding.writeVarUint(encoder.restEncoder, structs[0]?.id.clock ?? 0);
    for (const struct of structs) struct.write(encoder, 0);
  }
  encoding.writeVarUint(encoder.restEncoder, 0);
  return encoder.toUint8Array();
}

/** Updates that only delete, after everything that they delete. */
function deletions(
  ds: { clients: Map<number, { clock: number; len: number }[]> },
  bytesMax: number,
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let part = new Map<number, { clock: number; len: number }[]>();
  let bytes = PART_OVERHEAD;
  const finish = () => {
    if (part.size === 0) return;
    const encoder = new Y.UpdateEncoderV1();
    encoding.writeVarUint(encoder.restEncoder, 0);
    encoding.writeVarUint(encoder.restEncoder, part.size);
    for (const [client, ranges] of [...part].sort(([a], [b]) => b - a)) {
      encoder.resetDsCurVal();
      encoding.writeVarUint(encoder.restEncoder, client);
      encoding.writeVarUint(encoder.restEncoder, ranges.length);
      for (const { clock, len } of ranges) {
        encoder.writeDsClock(clock);
        encoder.writeDsLen(len);
      }
    }
    parts.push(encoder.toUint8Array());
    part = new Map();
    bytes = PART_OVERHEAD;
  };
  for (const [client, ranges] of ds.clients) {
    for (const range of ranges) {
      if (bytes + RANGE_BYTES + CLIENT_OVERHEAD > bytesMax) finish();
      const list = part.get(client);
      if (list === undefined) part.set(client, [range]);
      else list.push(range);
      bytes += RANGE_BYTES + (list === undefined ? CLIENT_OVERHEAD : 0);
    }
  }
  finish();
  return parts;
}
