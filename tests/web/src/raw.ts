// A WebSocket without a provider: bytes go out as they are given, frames come in as they are.

import * as decoding from 'lib0/decoding';
import * as encoding from 'lib0/encoding';
import { WebSocket } from 'ws';
import type { Close } from './participant.ts';
import { until, within } from './wait.ts';

/** Bytes from hexadecimal digits; spaces mean nothing. */
export function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));
}

/** Hexadecimal digits. */
export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}

/** A raw WebSocket and what came of it. */
export class Raw {
  readonly #socket: WebSocket;
  readonly #closed: Promise<Close>;
  /** The frames that came and were not taken. */
  readonly frames: Uint8Array[] = [];
  /** How it was closed. */
  close: Close | undefined;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = 'nodebuffer';
    socket.on('message', (data, isBinary) => {
      if (!isBinary) throw new Error(`the server sent text: ${String(data)}`);
      this.frames.push(Uint8Array.from(data as Buffer));
    });
    this.#closed = new Promise((done) => {
      socket.on('close', (code, reason) => {
        this.close = { code, reason: reason.toString() };
        done(this.close);
      });
    });
  }

  /** Opens one. Rejects when the handshake is refused. */
  static async open(
    url: string,
    options: { readonly protocols?: string[]; readonly origin?: string } = {},
  ): Promise<Raw> {
    const { protocols = [], ...rest } = options;
    const socket = new WebSocket(url, protocols, rest);
    const raw = new Raw(socket);
    await within(
      `a WebSocket to ${url}`,
      new Promise<void>((open, refused) => {
        socket.once('open', open);
        socket.on('error', refused);
      }),
    );
    return raw;
  }

  /** The sub-protocol that the server selected. */
  get protocol(): string {
    return this.#socket.protocol;
  }

  /** Sends a binary frame. */
  send(data: Uint8Array | string): void {
    this.#socket.send(typeof data === 'string' ? bytes(data) : data);
  }

  /** Sends a message as several WebSocket frames. */
  sendInPieces(data: Uint8Array, pieces: number): void {
    const size = Math.ceil(data.length / pieces);
    for (let at = 0; at < data.length; at += size) {
      this.#socket.send(data.subarray(at, at + size), {
        binary: true,
        fin: at + size >= data.length,
      });
    }
  }

  /** Sends a text frame. */
  sendText(text: string): void {
    this.#socket.send(text);
  }

  /** Writes bytes to the TCP connection, below WebSocket. */
  sendBelow(data: Uint8Array): void {
    const tcp = (this.#socket as unknown as { _socket: { write(data: Uint8Array): void } })._socket;
    tcp.write(data);
  }

  /** Takes the next frame for which `wanted` is true, and drops those before it. */
  async next(
    what: string,
    wanted: (frame: Uint8Array) => boolean = () => true,
  ): Promise<Uint8Array> {
    let at = -1;
    await until(
      () =>
        `${what}; there are ${this.frames.map(hex).join(' ')}, closed: ${JSON.stringify(this.close)}`,
      () => {
        at = this.frames.findIndex(wanted);
        return at >= 0;
      },
    );
    return this.frames.splice(0, at + 1).at(-1) as Uint8Array;
  }

  /** How the server closes it. */
  closed(patienceMs?: number): Promise<Close> {
    return within('the server to close the socket', this.#closed, patienceMs);
  }

  /** Cuts it. */
  cut(): void {
    this.#socket.terminate();
  }
}

/** The parts of a frame: `varUint` numbers, `bytes` and `text`, as in lib0. */
export type Part = number | string | Uint8Array;

/** A frame of these parts. */
export function frame(...parts: readonly Part[]): Uint8Array {
  const encoder = encoding.createEncoder();
  for (const part of parts) {
    if (typeof part === 'number') encoding.writeVarUint(encoder, part);
    else if (typeof part === 'string') encoding.writeVarString(encoder, part);
    else encoding.writeVarUint8Array(encoder, part);
  }
  return encoding.toUint8Array(encoder);
}

/** What a Hocuspocus frame says. */
export interface HocuspocusFrame {
  readonly address: string;
  readonly type: number;
  /** What follows. */
  readonly rest: Uint8Array;
}

/** Takes a Hocuspocus frame apart. */
export function hocuspocusFrame(data: Uint8Array): HocuspocusFrame {
  const decoder = decoding.createDecoder(data);
  const address = decoding.readVarString(decoder);
  const type = decoding.readVarUint(decoder);
  return { address, type, rest: decoding.readTailAsUint8Array(decoder) };
}

/** The types of Hocuspocus frames. */
export const TYPE = {
  sync: 0,
  awareness: 1,
  auth: 2,
  queryAwareness: 3,
  stateless: 5,
  broadcastStateless: 6,
  close: 7,
  syncStatus: 8,
} as const;

/** Sends the Auth frame of Hocuspocus and waits until it is taken. */
export async function authenticate(raw: Raw, address: string, token = ''): Promise<void> {
  raw.send(frame(address, TYPE.auth, 0, token, '4.8.0'));
  await raw.next('Authenticated', (data) => {
    const { address: to, type, rest } = hocuspocusFrame(data);
    return to === address && type === TYPE.auth && rest[0] === 2;
  });
}
