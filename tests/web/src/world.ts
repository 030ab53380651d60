// `test` of vitest with a world: everything that a test starts in it is ended after the test, and
// what it said is shown when the test fails.

import { type TestContext, test as plain } from 'vitest';
import { WebSocket } from 'ws';
import { Browser } from './browser.ts';
import { Certificate } from './certificate.ts';
import { Envoy } from './envoy.ts';
import { FarProcess } from './far-process.ts';
import { Follower, type NativeOptions } from './native.ts';
import {
  type Anyone,
  type HocuspocusSocket,
  type Options,
  Participant,
  type SocketClass,
  type Watch,
  hocuspocusSocket,
} from './participant.ts';
import { Raw } from './raw.ts';
import { type Door, Server, type Settings } from './server.ts';
import { Issuer } from './token.ts';
import { type Soon, until } from './wait.ts';

/** The socket class of Node. */
export const Socket = WebSocket as unknown as SocketClass;

/** Ends something. */
type End = () => Promise<void> | void;

/** How a participant comes in, without the place. */
export type Who = Omit<Options, 'ws'>;

/** What a test has started. */
export class World {
  readonly #ends: End[] = [];
  readonly #logs: (() => string)[] = [];
  readonly #browsers: Browser[] = [];

  /** A server of its own. */
  async server(settings: Settings = {}): Promise<Server> {
    const server = await Server.start(settings);
    this.#ends.push(() => server.stop());
    this.#logs.push(() => `server on ${server.port}:\n${server.log}`);
    return server;
  }

  /** A server of its own that speaks TLS and plain text on its port. */
  async serverWithTls(settings: Settings = {}): Promise<Server> {
    const certificate = new Certificate();
    this.#ends.push(() => certificate.remove());
    return this.server({
      ...settings,
      'transport.tls.certificate': certificate.certificate,
      'transport.tls.key': certificate.key,
      'transport.tls.plaintext': true,
    });
  }

  /** One who issues tokens. */
  issuer(): Issuer {
    const issuer = new Issuer();
    this.#ends.push(() => issuer.remove());
    return issuer;
  }

  /** Envoy before a server. */
  async envoy(server: Server): Promise<Envoy> {
    const envoy = await Envoy.start(server.port);
    this.#ends.push(() => envoy.stop());
    this.#logs.push(() => `envoy:\n${envoy.log}`);
    return envoy;
  }

  /** A browser. */
  async browser(): Promise<Browser> {
    const browser = await Browser.launch();
    this.#ends.push(() => browser.close());
    this.#browsers.push(browser);
    return browser;
  }

  /** A participant in this process. */
  open(door: Door, who: Who, shared?: SharedSocket): Participant {
    const participant = new Participant({ ...who, ws: door.ws }, Socket, shared);
    this.#ends.push(() => participant.destroy());
    return participant;
  }

  /** A participant in this process that has the server's state. */
  async join(door: Door, who: Who, shared?: SharedSocket): Promise<Participant> {
    const participant = this.open(door, who, shared);
    await synced(participant);
    return participant;
  }

  /** A Hocuspocus socket for several participants. */
  socket(door: Door, kind: 'hocuspocus' | 'hocuspocus-3'): SharedSocket {
    const shared = hocuspocusSocket({ kind, ws: door.ws }, Socket);
    this.#ends.push(() => shared.socket.destroy());
    return shared;
  }

  /** A participant in a process of its own. */
  async far(door: Door, who: Who): Promise<FarProcess> {
    const far = await FarProcess.open({ ...who, ws: door.ws });
    this.#ends.push(() => far.kill());
    return far;
  }

  /** A native client that shows the text. */
  follow(door: Door, options: NativeOptions): Follower {
    const follower = new Follower(door, options);
    this.#ends.push(() => follower.stop());
    return follower;
  }

  /** A WebSocket without a provider. */
  async raw(url: string, options?: Parameters<typeof Raw.open>[1]): Promise<Raw> {
    const raw = await Raw.open(url, options);
    this.#ends.push(() => raw.cut());
    return raw;
  }

  /** Something else that is to be ended. */
  defer(end: End): void {
    this.#ends.push(end);
  }

  /** What everything said, for a test that failed. */
  async tell(test: string): Promise<void> {
    for (const log of this.#logs) console.error(log());
    for (const browser of this.#browsers) await browser.keep(test);
  }

  /** Ends everything, the last first. */
  async end(): Promise<void> {
    const failures: unknown[] = [];
    for (const end of this.#ends.splice(0).reverse()) {
      try {
        await end();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, 'not everything ended well');
  }
}

/** A Hocuspocus socket and what happened to it. */
export interface SharedSocket {
  readonly socket: HocuspocusSocket;
  readonly watch: Watch;
}

/** Somebody with a text. */
export interface Reader {
  readonly text: () => Soon<string>;
}

/** `test` with a world. */
export const test = plain.extend<{ world: World }>({
  world: async ({ task }: TestContext, use: (world: World) => Promise<void>) => {
    const world = new World();
    await use(world);
    if (task.result?.state === 'fail') await world.tell(task.name);
    await world.end();
  },
});

/** Waits until a participant has the server's state. */
export async function synced(...all: readonly Anyone[]): Promise<void> {
  for (const one of all) {
    await until(
      async () => `a participant to be synced; sockets: ${JSON.stringify(await one.sockets())}`,
      () => one.synced(),
    );
  }
}

/**
 * Takes a participant offline. The Hocuspocus provider must be seen to be disconnected before it can
 * be asked to connect again.
 */
export async function offline(one: Anyone): Promise<void> {
  await one.disconnect();
  await until('a participant to be offline', async () => !(await one.connected()));
}

/** Waits until everybody has the same text, which is this one when given. Returns it. */
export async function converged(all: readonly Reader[], expected?: string): Promise<string> {
  const texts = (): Promise<string[]> => Promise.all(all.map(async (one) => one.text()));
  await until(
    async () =>
      `everybody to have ${JSON.stringify(expected ?? 'the same')}; they have ${JSON.stringify(await texts())}`,
    async () => {
      const [first, ...others] = await texts();
      return (expected ?? first) === first && others.every((text) => text === first);
    },
  );
  return (await texts())[0] ?? '';
}

/** Waits until everybody sees these names at cursors. */
export async function sees(
  all: readonly { readonly users: () => Soon<string[]> }[],
  names: readonly string[],
  patienceMs?: number,
): Promise<void> {
  const wanted = JSON.stringify([...names].sort());
  const seen = (): Promise<string[][]> => Promise.all(all.map(async (one) => one.users()));
  await until(
    async () => `everybody to see ${wanted}; they see ${JSON.stringify(await seen())}`,
    async () => (await seen()).every((users) => JSON.stringify(users) === wanted),
    patienceMs,
  );
}
