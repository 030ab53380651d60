// The real server as a process of its own, which can be killed at any moment.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const READY_WITHIN = 20_000;
/** How often other ports are tried. */
const STARTS_MAX = 5;

/** The binary: `COWRITE_BIN`, or what `cargo build` makes. */
function binary(): string {
  const built = fileURLToPath(new URL('../../target/debug/cowrite', import.meta.url));
  const path = process.env['COWRITE_BIN'] ?? built;
  try {
    accessSync(path, constants.X_OK);
  } catch {
    throw new Error(
      `these tests need the server: there is no ${path}. Build it with ` +
        '`cargo build -p cowrite-server`, or name one in COWRITE_BIN.',
    );
  }
  return path;
}

/** Settings by their names in docs/configuration.md: `{ 'room.checkpoint_updates': 50 }`. */
export type Settings = Readonly<Record<`${string}.${string}`, string | number | boolean>>;

/** A server on a port of its own, with a directory of its own. */
export class TestServer {
  readonly url: string;
  private readonly data = mkdtempSync(join(tmpdir(), 'cowrite-'));
  private process: ChildProcess | undefined;

  private constructor(
    private readonly port: number,
    private readonly adminPort: number,
    private readonly settings: Settings,
  ) {
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Starts one on free ports. */
  static async start(settings: Settings = {}): Promise<TestServer> {
    for (let attempt = 1; ; attempt++) {
      const server = new TestServer(await freePort(), await freePort(), settings);
      try {
        await server.start();
        return server;
      } catch (error) {
        await server.dispose();
        // A port may be taken between the look and the start.
        if (attempt === STARTS_MAX) throw error;
      }
    }
  }

  /** Starts it again, on the same port. */
  async start(): Promise<void> {
    const { port, adminPort } = this;
    const child = spawn(
      binary(),
      [
        'serve',
        ...['--data', this.data],
        ...['--listen', `127.0.0.1:${port}`],
        ...['--admin', `127.0.0.1:${adminPort}`],
      ],
      { stdio: 'ignore', env: { ...environment(), ...variables(this.settings) } },
    );
    this.process = child;
    const end = Date.now() + READY_WITHIN;
    while (child.exitCode === null) {
      const ready = await fetch(`http://127.0.0.1:${adminPort}/readyz`).catch(() => undefined);
      if (ready?.ok) return;
      if (Date.now() > end) throw new Error('the server is not ready within 20 s');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`the server ended with status ${child.exitCode}`);
  }

  /** The metrics of operators: samples by name and labels, as they are written. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const answer = await fetch(`http://127.0.0.1:${this.adminPort}/metrics`);
    const lines = (await answer.text()).split('\n').filter((line) => /^[a-z]/.test(line));
    return new Map(
      lines.map((line) => {
        const end = line.lastIndexOf(' ');
        return [line.slice(0, end), Number(line.slice(end))];
      }),
    );
  }

  /** `kill -9`. */
  kill(): Promise<void> {
    return this.end('SIGKILL');
  }

  /** Ends it in good order. */
  terminate(): Promise<void> {
    return this.end('SIGTERM');
  }

  /** Makes it forget everything. It must not run. */
  deleteData(): void {
    rmSync(this.data, { recursive: true });
  }

  /** Kills it and removes what it wrote. */
  async dispose(): Promise<void> {
    await this.kill();
    rmSync(this.data, { recursive: true, force: true });
  }

  private async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  }
}

/** Without what the server would take for settings, such as `COWRITE_BIN`. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('COWRITE_')),
  );
}

/** The environment variables that make these settings. */
function variables(settings: Settings): Record<string, string> {
  const name = (key: string) => `COWRITE_${key.toUpperCase().replaceAll('.', '__')}`;
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [name(key), String(value)]),
  );
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => {
        if (typeof address === 'object' && address !== null) resolve(address.port);
        else reject(new Error('no port'));
      });
    });
  });
}

/** Waits until `condition` holds, and fails after `limit` milliseconds. */
export async function until(what: string, condition: () => boolean, limit = 20_000): Promise<void> {
  const end = Date.now() + limit;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
