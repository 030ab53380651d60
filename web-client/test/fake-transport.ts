// A server that is played by hand: sessions as they arrive, frames when the test says so.
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import * as Y from 'yjs';
import type { Reason } from '../src/errors.js';
import {
  Access,
  AckSchema,
  ClosingSchema,
  type Joined,
  JoinedSchema,
  PingSchema,
  RefusedSchema,
  ServerAwarenessSchema,
  ServerUpdateSchema,
  SyncChunkSchema,
} from '../src/gen/cowrite/v1/collaboration_pb.js';
import { ErrorReason } from '../src/gen/cowrite/v1/error_pb.js';
import type {
  DownFrame,
  JoinFrame,
  PublishOptions,
  SessionKey,
  Transport,
  UpFrame,
} from '../src/transport.js';

/** The epoch of documents here. */
export const EPOCH = new Uint8Array(16).fill(7);

/** One call of Subscribe, and what was published to it. */
export class FakeSession {
  /** Messages as they were published. */
  readonly published: UpFrame[][] = [];
  readonly keepalive: UpFrame[][] = [];
  /** Publish answers at once; otherwise with {@link answer}. */
  answering = true;
  aborted = false;
  private readonly queue: DownFrame[][] = [];
  private failure: { readonly error: unknown } | undefined;
  private ended = false;
  private wake: (() => void) | undefined;
  private waiting: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  constructor(readonly join: JoinFrame) {}

  /** All frames so far, in order. */
  get frames(): UpFrame[] {
    return this.published.flat();
  }

  /** All updates so far, in order. */
  get updates(): { id: bigint; update: Uint8Array }[] {
    return this.frames.flatMap((frame) =>
      frame.case === 'update'
        ? [{ id: frame.value.updateId ?? 0n, update: frame.value.update ?? new Uint8Array() }]
        : [],
    );
  }

  send(...frames: DownFrame[]): void {
    this.queue.push(frames);
    this.wake?.();
  }

  joined(doc: Y.Doc, more: Partial<Joined> = {}): void {
    this.send({
      case: 'joined',
      value: create(JoinedSchema, {
        sessionId: 's',
        sessionSecret: new Uint8Array(16),
        epoch: EPOCH,
        access: Access.WRITE,
        stateVector: Y.encodeStateVector(doc),
        heartbeatInterval: { seconds: 15n, nanos: 0 },
        limits: {
          messageBytesMax: 4n << 20n,
          updateBytesMax: 1n << 20n,
          awarenessBytesMax: 256n,
          documentBytesMax: 64n << 20n,
        },
        ...(more as object),
      }),
    });
  }

  /** Sends the whole of `doc`, in two parts. */
  sync(doc: Y.Doc, sequence = 1n): void {
    const state = Y.encodeStateAsUpdate(doc);
    const middle = state.length >> 1;
    this.syncChunk(state.slice(0, middle), false, sequence);
    this.syncChunk(state.slice(middle), true, sequence);
  }

  syncChunk(bytes: Uint8Array, last: boolean, sequence = 1n): void {
    const value = create(SyncChunkSchema, {
      bytes: bytes as Uint8Array<ArrayBuffer>,
      last,
      sequence,
    });
    this.send({ case: 'syncChunk', value });
  }

  update(update: Uint8Array, sequence: bigint): void {
    const value = create(ServerUpdateSchema, {
      update: update as Uint8Array<ArrayBuffer>,
      sequence,
    });
    this.send({ case: 'update', value });
  }

  ack(updateId: bigint, sequence: bigint): void {
    this.send({ case: 'ack', value: create(AckSchema, { updateId, sequence }) });
  }

  refuse(updateId: bigint, reason: ErrorReason, retrySeconds?: number): void {
    const value = create(RefusedSchema, { updateId, reason, message: 'told so' });
    if (retrySeconds !== undefined) {
      value.retryAfter = duration(retrySeconds);
    }
    this.send({ case: 'refused', value });
  }

  ping(nonce: bigint): void {
    this.send({ case: 'ping', value: create(PingSchema, { nonce }) });
  }

  awareness(clientId: number, clock: bigint, state: string): void {
    const value = create(ServerAwarenessSchema, {
      clientId: BigInt(clientId),
      clock,
      state: new TextEncoder().encode(state),
    });
    this.send({ case: 'awareness', value });
  }

  closing(reason: ErrorReason, retrySeconds: number): void {
    const value = create(ClosingSchema, { reason, retryAfter: duration(retrySeconds) });
    this.send({ case: 'closing', value });
  }

  /** Ends the stream, with an error or in good order. */
  end(error?: unknown): void {
    if (error === undefined) this.ended = true;
    else this.failure = { error };
    this.wake?.();
  }

  /** Answers the Publish that has waited longest. */
  answer(error?: unknown): void {
    const call = this.waiting.shift();
    if (error === undefined) call?.resolve();
    else call?.reject(error);
  }

  async *stream(signal: AbortSignal): AsyncIterable<readonly DownFrame[]> {
    signal.addEventListener('abort', () => {
      this.aborted = true;
      this.wake?.();
    });
    for (;;) {
      const frames = this.queue.shift();
      if (signal.aborted) throw new ConnectError('aborted', Code.Canceled);
      if (frames !== undefined) yield frames;
      else if (this.failure !== undefined) throw this.failure.error;
      else if (this.ended) return;
      else await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  publish(frames: readonly UpFrame[], options: PublishOptions): Promise<void> {
    (options.keepalive ? this.keepalive : this.published).push([...frames]);
    if (this.answering) return Promise.resolve();
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}

/** The transport to it. */
export class FakeTransport implements Transport {
  readonly sessions: FakeSession[] = [];

  /** The latest session. */
  get session(): FakeSession {
    const session = this.sessions.at(-1);
    if (session === undefined) throw new Error('there is no session');
    return session;
  }

  subscribe(join: JoinFrame, signal: AbortSignal): AsyncIterable<readonly DownFrame[]> {
    const session = new FakeSession(join);
    this.sessions.push(session);
    return session.stream(signal);
  }

  publish(_key: SessionKey, frames: readonly UpFrame[], options: PublishOptions): Promise<void> {
    return this.session.publish(frames, options);
  }
}

/** A status as the server makes it. */
export function status(code: Code, reason: Reason, retrySeconds?: number): ConnectError {
  const error = new ConnectError('told so', code);
  const info = new BinaryWriter();
  info.tag(1, WireType.LengthDelimited).string(reason);
  info.tag(2, WireType.LengthDelimited).string('cowrite');
  error.details.push({ type: 'google.rpc.ErrorInfo', value: info.finish() });
  if (retrySeconds !== undefined) {
    const delay = new BinaryWriter();
    delay.tag(1, WireType.Varint).int64(BigInt(Math.floor(retrySeconds)));
    delay.tag(2, WireType.Varint).int32((retrySeconds % 1) * 1_000_000_000);
    const retry = new BinaryWriter();
    retry.tag(1, WireType.LengthDelimited).bytes(delay.finish());
    error.details.push({ type: 'google.rpc.RetryInfo', value: retry.finish() });
  }
  return error;
}

/** How connect-web reports a connection that was lost. */
export function networkError(): ConnectError {
  return ConnectError.from(new TypeError('network error'));
}

/** A document with a text. */
export function docWith(text: string): Y.Doc {
  const doc = new Y.Doc();
  doc.getText('content').insert(0, text);
  return doc;
}

function duration(seconds: number) {
  return {
    $typeName: 'google.protobuf.Duration' as const,
    seconds: BigInt(Math.floor(seconds)),
    nanos: (seconds % 1) * 1_000_000_000,
  };
}
