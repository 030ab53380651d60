// Local edits that are not known to be durable: what to send, and when.
//
// An edit is kept as an update only while a session can take it. When a session is lost, and while
// there is none, nothing is kept but the number of edits: the document has them, and the difference
// to what the next session's server has is one update with all of them.
import * as Y from 'yjs';
import { CowriteError, type Reason } from './errors.js';
import { splitUpdate } from './split.js';

/** Updates larger than this are divided, 128 KiB: an upload must end long before a heartbeat. */
export const PART_BYTES = 128 << 10;
/** More updates than this are merged while they wait. */
const PENDING_MAX = 64;
/** `00 00`: no structs, nothing deleted. */
const EMPTY_UPDATE_BYTES = 2;

/** A state vector, encoded or as Yjs has it in a transaction. */
export type State = Uint8Array | ReadonlyMap<number, number>;

/** An edit that the server did not take. */
export interface Refusal {
  readonly reason: Reason;
  readonly message: string;
}

/** An update on its way. */
export interface OutgoingUpdate {
  readonly id: bigint;
  readonly update: Uint8Array;
}

interface Session {
  readonly updateBytesMax: number;
  readonly messageBytesMax: number;
  nextId: bigint;
  /** Sent, not acknowledged: up to which edit each update goes. */
  readonly inFlight: { id: bigint; through: number; acceptedAt: number | undefined }[];
  /** Edits since the last push. */
  pending: Uint8Array[];
  /** Parts of an update that follow each other, and up to which edit the last goes. */
  parts: Uint8Array[];
  partsThrough: number;
  /** What is unconfirmed has to be sent as the difference to `base`. */
  needsDifference: boolean;
  hold: { until: number } | { refusal: Refusal } | undefined;
}

/** The edits of one document, over all its sessions. Times are in milliseconds of one clock. */
export class Unconfirmed {
  private session: Session | undefined;
  /** How many edits there were. */
  private last = 0;
  /** Up to this edit everything is durable. */
  private confirmed = 0;
  /** A state that the server has for certain. */
  private base: State = new Map();
  private since: number | undefined;
  /** Why the last try failed of edits that are tried again, until one is acknowledged. */
  private retrying: Refusal | undefined;

  /** `difference` encodes everything that the document has and a state has not. */
  constructor(private readonly difference: (since: State) => Uint8Array) {}

  /** A local edit was made: `update` is it, `before` is the document's state before it. */
  edited(update: Uint8Array, before: ReadonlyMap<number, number>, now: number): void {
    if (this.edits === 0 && this.session !== undefined) this.base = before;
    this.count(now);
    const session = this.session;
    if (session === undefined || session.needsDifference || session.hold !== undefined) return;
    session.pending.push(update);
    if (session.pending.length > PENDING_MAX) session.pending = [Y.mergeUpdates(session.pending)];
  }

  /** The document has content of which it is not known whether the server has it. */
  unknown(now: number): void {
    this.count(now);
    if (this.session !== undefined) this.session.needsDifference = true;
  }

  private count(now: number): void {
    if (this.edits === 0) this.since = now;
    this.last += 1;
  }

  /** A session has begun on a server that has `base`. */
  sessionBegan(
    base: Uint8Array,
    limits: { updateBytesMax: number; messageBytesMax: number },
  ): void {
    this.base = base;
    this.retrying = undefined;
    this.session = {
      ...limits,
      nextId: 1n,
      inFlight: [],
      pending: [],
      parts: [],
      partsThrough: 0,
      needsDifference: this.edits > 0,
      hold: undefined,
    };
  }

  /** The session has ended: what was on its way may have arrived or not. */
  sessionEnded(): void {
    this.session = undefined;
  }

  /** There is something that {@link take} would return. */
  wantsToSend(now: number): boolean {
    const session = this.session;
    if (session === undefined || !this.isOpen(session, now)) return false;
    return session.needsDifference || session.parts.length > 0 || session.pending.length > 0;
  }

  private isOpen({ hold }: Session, now: number): boolean {
    return hold === undefined || ('until' in hold && hold.until <= now);
  }

  /** The updates of the next message, in order. */
  take(now: number): OutgoingUpdate[] {
    const session = this.session;
    if (session === undefined || !this.wantsToSend(now)) return [];
    session.hold = undefined;
    if (session.parts.length === 0 && !this.fill(session)) return [];
    const taken: OutgoingUpdate[] = [];
    let bytes = 0;
    // A part is at most a quarter of a message, so that one always fits.
    const bytesMax = Math.min(PART_BYTES, session.messageBytesMax >> 1);
    for (let part = session.parts[0]; part !== undefined; part = session.parts[0]) {
      if (taken.length > 0 && bytes + part.length > bytesMax) break;
      session.parts.shift();
      bytes += part.length;
      const id = session.nextId++;
      taken.push({ id, update: part });
      const through = session.parts.length === 0 ? session.partsThrough : 0;
      session.inFlight.push({ id, through, acceptedAt: undefined });
    }
    return taken;
  }

  /** Makes the next update, in parts. Returns whether there is one. */
  private fill(session: Session): boolean {
    const whole = session.needsDifference;
    let update: Uint8Array;
    if (whole) {
      update = this.difference(this.base);
    } else {
      const [only, ...more] = session.pending;
      if (only === undefined) return false;
      update = more.length === 0 ? only : Y.mergeUpdates(session.pending);
    }
    session.needsDifference = false;
    session.pending = [];
    if (update.length <= EMPTY_UPDATE_BYTES) {
      const before = session.inFlight.at(-1);
      if (before === undefined) this.confirm(this.last);
      else before.through = this.last;
      return false;
    }
    const bytesMax = Math.min(session.updateBytesMax, session.messageBytesMax >> 1);
    const parts =
      update.length <= Math.min(PART_BYTES, bytesMax)
        ? [update]
        : (splitUpdate(update, Math.min(PART_BYTES, bytesMax)) ??
          // Content that has no middle: whole, if it is let through.
          (update.length <= bytesMax ? [update] : splitUpdate(update, bytesMax)));
    if (parts === undefined) {
      const message = `an edit has a piece of more than ${bytesMax} bytes, the server takes no larger`;
      session.hold = { refusal: { reason: 'UPDATE_TOO_LARGE', message } };
      session.needsDifference = true;
      return false;
    }
    session.parts = parts;
    session.partsThrough = this.last;
    return parts.length > 0;
  }

  /** The server has taken everything that was sent. */
  accepted(now: number): void {
    for (const update of this.session?.inFlight ?? []) update.acceptedAt ??= now;
  }

  /** Everything up to `id` is durable. */
  acknowledged(id: bigint): void {
    const session = this.session;
    if (session === undefined) return;
    let through = 0;
    while (session.inFlight[0] !== undefined && session.inFlight[0].id <= id) {
      through = Math.max(through, session.inFlight.shift()?.through ?? 0);
      this.retrying = undefined;
    }
    if (through > this.confirmed) this.confirm(through);
  }

  private confirm(through: number): void {
    this.confirmed = through;
    if (this.edits === 0) this.since = undefined;
  }

  /** The update `id` was not taken. With `retryAfter` its edits are sent again then. */
  refused(id: bigint, refusal: Refusal, retryAfter: number | undefined, now: number): void {
    const session = this.session;
    if (session === undefined) return;
    // What was sent after it may depend on it: the difference has to be to a state that the server
    // has for certain.
    const kept = session.inFlight.filter((update) => update.id < id);
    session.inFlight.splice(0, Infinity, ...kept);
    session.pending = [];
    session.parts = [];
    session.needsDifference = true;
    session.hold = retryAfter === undefined ? { refusal } : { until: now + retryAfter };
    this.retrying = retryAfter === undefined ? undefined : refusal;
  }

  /** The session may write from now on, or may not. */
  mayWrite(may: boolean): void {
    const session = this.session;
    if (session === undefined) return;
    const { hold } = session;
    const denied =
      hold !== undefined && 'refusal' in hold && hold.refusal.reason === 'WRITE_DENIED';
    if (may && denied) {
      session.hold = undefined;
      session.needsDifference = this.edits > 0;
    } else if (!may && !denied) {
      const refusal: Refusal = { reason: 'WRITE_DENIED', message: 'this session may only read' };
      session.hold = { refusal };
    }
  }

  /** When {@link take} is worth asking again without any other event. */
  get retryAt(): number | undefined {
    const hold = this.session?.hold;
    return hold !== undefined && 'until' in hold ? hold.until : undefined;
  }

  /** Why edits are not saved, while there are such. */
  get refusal(): Refusal | undefined {
    const hold = this.session?.hold;
    if (this.session === undefined || this.edits === 0) return undefined;
    return hold !== undefined && 'refusal' in hold ? hold.refusal : this.retrying;
  }

  /** How many edits are not known to be durable. */
  get edits(): number {
    return this.last - this.confirmed;
  }

  /** The number of the last edit. */
  get lastEdit(): number {
    return this.last;
  }

  /** Since when there have been unconfirmed edits. */
  get unsavedSince(): number | undefined {
    return this.since;
  }

  /** Since when the server has had an update without acknowledging it. */
  get waitingSince(): number | undefined {
    return this.session?.inFlight[0]?.acceptedAt;
  }

  /** Everything unconfirmed as one update, complete on a server that {@link base} describes. */
  everything(): Uint8Array {
    return this.difference(this.base);
  }

  /** An id for an update that is sent past {@link take}, as the last of a session. */
  freshId(): bigint {
    return this.session === undefined ? 1n : this.session.nextId++;
  }

  /** The refusal as an error. */
  get error(): CowriteError | undefined {
    const refusal = this.refusal;
    return refusal && new CowriteError('not-saved', refusal.message, { reason: refusal.reason });
  }
}
