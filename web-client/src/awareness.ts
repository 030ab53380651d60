// Awareness between y-protocols and the wire. The server owns clocks and decides who is here; to
// y-protocols each of its words is simply the next state of that client.
import * as encoding from 'lib0/encoding';
import { type Awareness, applyAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness';
import { guard } from './errors.js';

/** What the `update` event of an Awareness tells. */
interface Changes {
  readonly added: readonly number[];
  readonly updated: readonly number[];
  readonly removed: readonly number[];
}

const EMPTY = new Uint8Array();

/** What a link tells its owner. */
export interface AwarenessPorts {
  /** There is a state to send. */
  readonly changed: () => void;
  /** The own state is larger than the server takes, and is not sent. */
  readonly tooLarge: (message: string) => void;
}

/** Ties an Awareness to the sessions of one provider. */
export class AwarenessLink {
  /** The clients that the server told of, with its clock. */
  private readonly remote = new Map<number, bigint>();
  private sent: string | undefined;
  private bytesMax = Infinity;
  private live = false;

  /** `origin` is what the events of the Awareness name as the cause of remote changes. */
  constructor(
    private readonly awareness: Awareness,
    private readonly origin: unknown,
    private readonly ports: AwarenessPorts,
  ) {
    awareness.on('update', this.onUpdate);
  }

  /** The client id to announce. */
  get clientId(): number {
    return this.awareness.clientID;
  }

  /** A session has begun: the own state has to be announced. */
  sessionBegan(bytesMax: number): void {
    this.live = true;
    this.sent = undefined;
    this.bytesMax = bytesMax;
  }

  /** The session has ended: nobody can be seen any more. */
  sessionEnded(): void {
    this.live = false;
    this.remove([...this.remote.keys()]);
  }

  /**
   * The state to send, `undefined` when the server has it. y-protocols renews a state every 15 s;
   * the server does not need that.
   */
  take(): Uint8Array | undefined {
    const json = this.json();
    if (!this.live || json === (this.sent ?? '')) return undefined;
    const bytes = json === '' ? EMPTY : new TextEncoder().encode(json);
    this.sent = json;
    if (bytes.length <= this.bytesMax) return bytes;
    this.ports.tooLarge(
      `the awareness state has ${bytes.length} bytes, the server takes ${this.bytesMax}`,
    );
    return undefined;
  }

  /** There is something to {@link take}. */
  get wantsToSend(): boolean {
    return this.live && this.json() !== (this.sent ?? '');
  }

  private json(): string {
    const state = this.awareness.getLocalState();
    return state === null ? '' : JSON.stringify(state);
  }

  /** The server told of a client. An empty state means that it is gone. */
  received(client: number, clock: bigint, state: Uint8Array): void {
    if (client === this.awareness.clientID) return;
    if (state.length === 0) {
      this.remove([client]);
      return;
    }
    if ((this.remote.get(client) ?? -1n) >= clock) return;
    let json: string;
    try {
      json = new TextDecoder('utf-8', { fatal: true }).decode(state);
      // y-protocols takes null for a client that is gone.
      if (JSON.parse(json) === null) return this.remove([client]);
    } catch {
      // What cannot be read is as good as no state.
      return this.remove([client]);
    }
    this.remote.set(client, clock);
    const encoder = encoding.createEncoder();
    encoding.writeVarUint(encoder, 1);
    encoding.writeVarUint(encoder, client);
    // The next clock that y-protocols accepts, whatever clocks the server has had before.
    const next = (this.awareness.meta.get(client)?.clock ?? 0) + 1;
    encoding.writeVarUint(encoder, next);
    encoding.writeVarString(encoder, json);
    const update = encoding.toUint8Array(encoder);
    guard(() => applyAwarenessUpdate(this.awareness, update, this.origin));
    // y-protocols drops a state that is not renewed for 30 s. The server says when a client is gone,
    // and the end of the session says it of all.
    const meta = this.awareness.meta.get(client);
    if (meta !== undefined) this.awareness.meta.set(client, { ...meta, lastUpdated: Infinity });
  }

  private remove(clients: readonly number[]): void {
    const known = clients.filter((client) => this.remote.delete(client));
    guard(() => removeAwarenessStates(this.awareness, known, this.origin));
    // So that coming back counts as added, and memory does not grow with everybody who ever was here.
    for (const client of known) this.awareness.meta.delete(client);
  }

  /** Lets go of the Awareness. */
  destroy(): void {
    this.awareness.off('update', this.onUpdate);
    this.sessionEnded();
  }

  private readonly onUpdate = ({ added, updated, removed }: Changes, origin: unknown): void => {
    const own = this.awareness.clientID;
    const concerns = [added, updated, removed].some((clients) => clients.includes(own));
    if (origin !== this.origin && concerns && this.wantsToSend) this.ports.changed();
  };
}
