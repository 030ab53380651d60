// A session into which updates go as they are: the provider would make others of them.
import { Session } from '../src/session.js';
import { type UpFrame, grpcWebTransport } from '../src/transport.js';

/** As many bytes of updates in one message as any server takes. */
const MESSAGE_BYTES = 1 << 20;

interface Waiting {
  readonly update: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** One session on one document. */
export class RawSession {
  private readonly queued: bigint[] = [];
  private readonly waiting = new Map<bigint, Waiting>();
  private lastId = 0n;
  private ended: Error | undefined;
  private readonly session: Session;

  private constructor(
    url: string,
    document: string,
    joined: () => void,
    failed: (error: Error) => void,
  ) {
    const ignore = () => undefined;
    this.session = new Session(
      grpcWebTransport(url),
      { protocolVersion: 1, document },
      {
        joined,
        collect: () => this.collect(),
        acknowledged: (through) => {
          for (const id of [...this.waiting.keys()]) {
            if (id <= through) this.waited(id)?.resolve();
          }
        },
        refused: (id, reason, message) =>
          this.waited(id)?.reject(new Error(`update ${id} was refused: ${reason} ${message}`)),
        ended: (error) => {
          this.ended = new Error(`the session ended: ${error.reason} ${error.message}`);
          failed(this.ended);
          for (const id of [...this.waiting.keys()]) this.waited(id)?.reject(this.ended);
        },
        ...{ synced: ignore, updated: ignore, awareness: ignore, access: ignore },
        ...{ heard: ignore, answered: ignore },
      },
    );
  }

  /** Resolves when the session is open; rejects when there will be none. */
  static open(url: string, document: string): Promise<RawSession> {
    return new Promise((resolve, reject) => {
      const joined = () => resolve(session);
      const session: RawSession = new RawSession(url, document, joined, reject);
    });
  }

  /** Resolves when `update` is acknowledged; rejects when it is refused, or when the session ends. */
  send(update: Uint8Array): Promise<void> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      if (this.ended) return reject(this.ended);
      this.waiting.set(id, { update, resolve, reject });
      this.queued.push(id);
      this.session.kick();
    });
  }

  /** Says goodbye. */
  leave(): void {
    this.session.leave([], false);
  }

  private collect(): UpFrame[] {
    const frames: UpFrame[] = [];
    let bytes = 0;
    for (let id = this.queued[0]; id !== undefined; id = this.queued[0]) {
      const update = this.waiting.get(id)?.update ?? new Uint8Array();
      bytes += update.length;
      if (frames.length > 0 && bytes > MESSAGE_BYTES) break;
      frames.push({ case: 'update', value: { updateId: id, update } });
      this.queued.shift();
    }
    return frames;
  }

  private waited(id: bigint): Waiting | undefined {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    return waiting;
  }
}
