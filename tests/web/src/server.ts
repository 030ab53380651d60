// The server as a process of its own, which can be killed and comes back where it was.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Child, executable, freePort, plainEnvironment } from './process.ts';
import { until } from './wait.ts';

/** Settings by their names in docs/configuration.md: `{ 'session.heartbeat_interval': '1s' }`. */
export type Settings = Readonly<Record<`${string}.${string}`, string | number | boolean>>;

/** How often another port is tried when one was taken between the look and the start. */
const STARTS_MAX = 5;

/** The `cowrite` command. */
export function binary(): string {
  return executable(
    'COWRITE_BIN',
    'target/debug/cowrite',
    'run `cargo build -p cowrite-server --bin cowrite`',
  );
}

/** The environment variables that make these settings. */
export function environment(settings: Settings): Record<string, string> {
  const variables = Object.entries(settings).map(([key, value]) => [
    `COWRITE_${key.toUpperCase().replaceAll('.', '__')}`,
    String(value),
  ]);
  return Object.fromEntries(variables);
}

/** A `cowrite serve` that runs. */
export class Server {
  readonly port: number;
  readonly #data: string;
  readonly #settings: Settings;
  #child: Child;
  #earlier = '';

  private constructor(port: number, data: string, settings: Settings) {
    this.port = port;
    this.#data = data;
    this.#settings = settings;
    this.#child = this.#spawn();
  }

  /** A server on a free port and an empty directory. Returns when it is ready. */
  static async start(settings: Settings = {}): Promise<Server> {
    const data = mkdtempSync(join(tmpdir(), 'cowrite-web-'));
    for (let attempt = 1; ; attempt += 1) {
      const server = new Server(await freePort(), data, settings);
      try {
        await server.#ready();
        return server;
      } catch (error) {
        const taken = /in use/i.test(server.log);
        await server.#child.kill();
        if (!taken || attempt === STARTS_MAX) {
          rmSync(data, { recursive: true, force: true });
          throw error;
        }
      }
    }
  }

  #spawn(): Child {
    const listen = ['--listen', `127.0.0.1:${this.port}`, '--admin', '127.0.0.1:0'];
    const child = new Child(binary(), ['serve', ...listen, '--data', this.#data], {
      ...plainEnvironment(),
      ...environment(this.#settings),
    });
    child.onOutput(() => {});
    return child;
  }

  async #ready(): Promise<void> {
    const child = this.#child;
    await until(
      () => `the server to be ready; it said:\n${this.log}`,
      async () => {
        if (!child.running) throw new Error(`the server ended:\n${this.log}`);
        const answer = await fetch(`${this.http}/readyz`).catch(() => undefined);
        await answer?.body?.cancel();
        return answer?.ok === true;
      },
    );
  }

  /** `host:port` of the clients' listener. */
  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** For gRPC, pages and probes. */
  get http(): string {
    return `http://${this.address}`;
  }

  /** For WebSockets. */
  get ws(): string {
    return `ws://${this.address}`;
  }

  /** What the server said, over all its lives. */
  get log(): string {
    return `${this.#earlier}${this.#child.log}`;
  }

  /** Whether the process runs. */
  get running(): boolean {
    return this.#child.running;
  }

  /** Where a client finds it that is not told to use a proxy. */
  get door(): Door {
    return { http: this.http, ws: this.ws };
  }

  /** The same port with TLS, for a server that has a certificate. */
  get tlsDoor(): Door {
    return { http: `https://${this.address}`, ws: `wss://${this.address}` };
  }

  /** The metrics of operators, summed over their labels: those that are not there are 0. */
  async metric(name: string): Promise<number> {
    const admin = [...this.#child.log.matchAll(/\badmin=(\S+)/g)].at(-1)?.[1];
    if (admin === undefined) throw new Error('the server has not said where its metrics are');
    const text = await (await fetch(`http://${admin}/metrics`)).text();
    const samples = text
      .split('\n')
      .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return samples.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  /** Kills the process as a loss of power does. */
  async kill9(): Promise<void> {
    await this.#child.kill();
  }

  /** Asks the process to end; returns its exit code. */
  async drain(): Promise<number | null> {
    this.#child.signal('SIGTERM');
    return this.#child.ended();
  }

  /** Starts it again on the same port and data; a server that runs is killed first. */
  async restart(): Promise<void> {
    await this.#child.kill();
    this.#earlier = `${this.log}\n-- restart --\n`;
    this.#child = this.#spawn();
    await this.#ready();
  }

  /** Ends it, by force when it does not go, and removes its data. */
  async stop(): Promise<void> {
    try {
      await this.#child.stop();
    } finally {
      rmSync(this.#data, { recursive: true, force: true });
    }
  }
}

/** Where clients come in: the server itself, or a proxy before it. */
export interface Door {
  readonly http: string;
  readonly ws: string;
}
