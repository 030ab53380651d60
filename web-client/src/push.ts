// What goes up in a session: one message in flight, everything that comes meanwhile in the next. The
// order of edits follows from it, and so does a latency that does not grow with the rate of typing.
import type { UpFrame } from './transport.js';

/** A push is given this long, in milliseconds, and one more second for each 8 KiB. */
const PUSH_TIMEOUT = 10_000;
const BYTES_PER_SECOND = 8 << 10;

/** What a pusher needs. */
export interface PusherPorts {
  /** Everything that is to be sent now, at most one message; empty for nothing. */
  readonly collect: () => UpFrame[];
  readonly publish: (frames: readonly UpFrame[], timeout: number) => Promise<void>;
  /** The server has taken a message. */
  readonly answered: () => void;
  /** A message was not taken. Nothing more is sent. */
  readonly failed: (error: unknown) => void;
}

/** The only sender of a session. */
export class Pusher {
  private inFlight: Promise<void> | undefined;
  private readonly urgent: UpFrame[] = [];
  private stopped = false;

  constructor(private readonly ports: PusherPorts) {}

  /** Sends `frame` at once, or right after the message in flight. */
  send(frame: UpFrame): void {
    this.urgent.push(frame);
    this.kick();
  }

  /** There may be something to send. */
  kick(): void {
    if (this.stopped || this.inFlight !== undefined) return;
    const frames = [...this.urgent.splice(0), ...this.ports.collect()];
    if (frames.length === 0) return;
    const timeout = PUSH_TIMEOUT + (frameBytes(frames) / BYTES_PER_SECOND) * 1000;
    this.inFlight = this.ports.publish(frames, timeout).then(
      () => {
        this.inFlight = undefined;
        if (this.stopped) return;
        this.ports.answered();
        this.kick();
      },
      (error: unknown) => {
        this.inFlight = undefined;
        if (this.stopped) return;
        this.stopped = true;
        this.ports.failed(error);
      },
    );
  }

  /** Nothing more is sent. Resolves when nothing is in flight. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.inFlight;
  }
}

/** The size of what may be large in frames. */
export function frameBytes(frames: readonly UpFrame[]): number {
  let bytes = 0;
  for (const frame of frames) {
    if (frame.case === 'update') bytes += frame.value.update?.length ?? 0;
    if (frame.case === 'awareness') bytes += frame.value.state?.length ?? 0;
  }
  return bytes;
}
