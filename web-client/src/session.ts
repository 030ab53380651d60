// One session on one document, from Join to its end.
import { type Duration } from '@bufbuild/protobuf/wkt';
import {
  type ClosingNotice,
  CowriteError,
  type Reason,
  fromCall,
  reasonName,
  report,
} from './errors.js';
import { Access, type Joined } from './gen/cowrite/v1/collaboration_pb.js';
import { Pusher } from './push.js';
import type { DownFrame, JoinFrame, SessionKey, Transport, UpFrame } from './transport.js';

/** Room for the parts of a state difference that are not content. */
const SYNC_SLACK_BYTES = 1 << 20;
/** How long the stream may take to end by itself after a Publish was refused, in milliseconds. */
const END_WAIT = 1_000;
/** How long goodbye may take, in milliseconds. */
const LEAVE_TIMEOUT = 2_000;
/** What a page that goes may still send, in bytes: browsers let 64 KiB through. */
export const KEEPALIVE_BYTES = 48 << 10;

/**
 * What a session may do with the document. `comment` may edit the shared type that is for comments, and
 * nothing else: a page opens its editor as for `read`.
 */
export type DocumentAccess = 'read' | 'comment' | 'write';

/** What a session tells its owner. Nothing is told after `ended` or after the session was let go. */
export interface SessionPorts {
  /** What to send now. */
  readonly collect: () => UpFrame[];
  readonly joined: (joined: Joined, access: DocumentAccess) => void;
  /** A complete state difference. */
  readonly synced: (update: Uint8Array, sequence: bigint) => void;
  /** Edits of others. */
  readonly updated: (update: Uint8Array, sequence: bigint) => void;
  readonly acknowledged: (id: bigint, sequence: bigint) => void;
  readonly refused: (id: bigint, reason: Reason, message: string, retryAfter?: number) => void;
  readonly awareness: (client: number, clock: bigint, state: Uint8Array) => void;
  readonly access: (access: DocumentAccess) => void;
  /** Something came on the stream. */
  readonly heard: () => void;
  /** The server has taken a message. */
  readonly answered: () => void;
  readonly ended: (error: CowriteError) => void;
}

/** A session that is being opened or is open. */
export class Session {
  private readonly abort = new AbortController();
  private readonly pusher: Pusher;
  private key: SessionKey | undefined;
  private closing: ClosingNotice | undefined;
  private chunks: Uint8Array[] = [];
  private chunkBytes = 0;
  private syncBytesMax = Infinity;
  private over = false;
  private leaving = false;
  private failing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly transport: Transport,
    join: JoinFrame,
    private readonly ports: SessionPorts,
  ) {
    this.pusher = new Pusher({
      collect: () => (this.key === undefined ? [] : ports.collect()),
      publish: (frames, timeout) => this.publish(frames, timeout),
      answered: () => ports.answered(),
      failed: (error) => this.publishFailed(fromCall(error, this.closing)),
    });
    void this.run(join);
  }

  /** There may be something to send. */
  kick(): void {
    if (this.key !== undefined && !this.over) this.pusher.kick();
  }

  /** Sends something that the server has to answer. */
  probe(): void {
    if (this.key !== undefined) this.pusher.send({ case: 'pong', value: { nonce: 0n } });
  }

  /** Brings a new token to the server. */
  refreshToken(token: string): void {
    if (this.key !== undefined) this.pusher.send({ case: 'refreshToken', value: { token } });
  }

  /** Lets go of the session without a word. */
  drop(): void {
    if (this.over) return;
    this.finish();
    this.abort.abort();
  }

  /**
   * Lets go of the session, and says goodbye with `last` frames. `unloading` is for a page that goes:
   * nothing can be waited for.
   */
  leave(last: readonly UpFrame[], unloading: boolean): void {
    if (this.over) return;
    const key = this.key;
    this.finish();
    if (key === undefined) return this.abort.abort();
    this.leaving = true;
    const end = setTimeout(() => this.abort.abort(), LEAVE_TIMEOUT);
    const frames: UpFrame[] = [...last, { case: 'leave', value: {} }];
    const goodbye = () =>
      this.transport.publish(key, frames, {
        signal: this.abort.signal,
        timeout: LEAVE_TIMEOUT,
        keepalive: unloading,
      });
    const sent = unloading ? goodbye() : this.pusher.stop().then(goodbye);
    void sent
      .catch(() => undefined)
      .then(() => {
        // The stream of a page that goes is ended by the server, and must not be gone before the
        // goodbye arrives.
        if (unloading) return;
        clearTimeout(end);
        this.abort.abort();
      });
  }

  private publish(frames: readonly UpFrame[], timeout: number): Promise<void> {
    if (this.key === undefined) return Promise.resolve();
    return this.transport.publish(this.key, frames, { signal: this.abort.signal, timeout });
  }

  private async run(join: JoinFrame): Promise<void> {
    try {
      for await (const frames of this.transport.subscribe(join, this.abort.signal)) {
        // A session that says goodbye is read to its end, or the goodbye would find it gone.
        if (this.leaving) continue;
        if (this.over) return;
        this.ports.heard();
        for (const frame of frames) {
          this.take(frame);
          if (this.over) return;
        }
        // What was acknowledged or asked for may have made something to send.
        this.kick();
      }
      this.end(
        new CowriteError('lost', 'the server ended the session', {
          reason: this.closing?.reason ?? 'UNSPECIFIED',
          retryAfter: this.closing?.retryAfter,
        }),
      );
    } catch (error) {
      this.end(fromCall(error, this.closing));
    }
  }

  private take(frame: DownFrame): void {
    try {
      this.received(frame);
    } catch (error) {
      // What an application throws when it is told of something is no fault of the session.
      if (error instanceof CowriteError) throw error;
      report(error);
    }
  }

  private received(frame: DownFrame): void {
    if (this.key === undefined && frame.case !== 'joined' && frame.case !== 'closing') {
      if (frame.case === undefined) return;
      throw new CowriteError('protocol', 'the first frame is not Joined');
    }
    switch (frame.case) {
      case 'joined':
        if (this.key !== undefined) throw new CowriteError('protocol', 'a second Joined');
        return this.joined(frame.value);
      case 'syncChunk':
        return this.syncChunk(frame.value.bytes, frame.value.last, frame.value.sequence);
      case 'update':
        return this.ports.updated(frame.value.update, frame.value.sequence);
      case 'ack':
        return this.ports.acknowledged(frame.value.updateId, frame.value.sequence);
      case 'refused': {
        const { updateId, reason, message, retryAfter } = frame.value;
        const delay = milliseconds(retryAfter);
        return delay === undefined
          ? this.ports.refused(updateId, reasonName(reason), message)
          : this.ports.refused(updateId, reasonName(reason), message, delay);
      }
      case 'awareness':
        return this.ports.awareness(
          Number(frame.value.clientId),
          frame.value.clock,
          frame.value.state,
        );
      case 'ping':
        // From here and not from a timer: browsers slow timers down.
        return this.pusher.send({ case: 'pong', value: { nonce: frame.value.nonce } });
      case 'accessChanged':
        return this.ports.access(accessName(frame.value.access));
      case 'closing':
        this.closing = {
          reason: reasonName(frame.value.reason),
          retryAfter: milliseconds(frame.value.retryAfter),
        };
        return;
      case undefined:
        // A frame of a kind that this version does not know.
        return;
    }
  }

  private joined(joined: Joined): void {
    this.key = { id: joined.sessionId, secret: joined.sessionSecret };
    const documentBytesMax = Number(joined.limits?.documentBytesMax ?? 0n);
    if (documentBytesMax > 0) this.syncBytesMax = 2 * documentBytesMax + SYNC_SLACK_BYTES;
    this.ports.joined(joined, accessName(joined.access));
  }

  private syncChunk(bytes: Uint8Array, last: boolean, sequence: bigint): void {
    this.chunkBytes += bytes.length;
    if (this.chunkBytes > this.syncBytesMax) {
      throw new CowriteError('protocol', 'a state larger than the largest document');
    }
    this.chunks.push(bytes);
    if (!last) return;
    const update = concatenate(this.chunks, this.chunkBytes);
    this.chunks = [];
    this.chunkBytes = 0;
    this.ports.synced(update, sequence);
  }

  private publishFailed(error: CowriteError): void {
    // A reason is the server's own: the stream is about to end with the same, and with more.
    if (error.code === 'lost' && error.reason === 'UNSPECIFIED') this.end(error);
    else this.failing = setTimeout(() => this.end(error), END_WAIT);
  }

  private end(error: CowriteError): void {
    if (this.over) return;
    this.finish();
    this.abort.abort();
    this.ports.ended(error);
  }

  private finish(): void {
    this.over = true;
    clearTimeout(this.failing);
    void this.pusher.stop();
  }
}

function accessName(access: Access): DocumentAccess {
  switch (access) {
    case Access.READ:
      return 'read';
    case Access.COMMENT:
      return 'comment';
    case Access.UNSPECIFIED:
    case Access.WRITE:
      return 'write';
  }
}

/** A duration in milliseconds. */
export function milliseconds(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}

function concatenate(chunks: readonly Uint8Array[], bytes: number): Uint8Array {
  const [only] = chunks;
  if (only !== undefined && chunks.length === 1) return only;
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
