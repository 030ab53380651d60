// Child processes that a test started: their output is kept, and only they are ever stopped.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { within } from './wait.ts';

/** The repository. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

/** How many lines of a log are kept: the last ones. */
const LINES_MAX = 2000;

/** How long a process may take to end after it was asked to: more than `shutdown.grace`. */
const END_MS = 15_000;

/** A file that can be run, from the environment or from its usual place. */
export function executable(variable: string, usual: string, hint: string): string {
  const file = resolve(process.env[variable] ?? resolve(ROOT, usual));
  if (!existsSync(file)) throw new Error(`${file} is not there: ${hint}, or set ${variable}`);
  return file;
}

/** The environment without the settings that whoever runs the tests has. */
export function plainEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('COWRITE_')),
  );
}

/** Those that run: none outlives the tests, however these end. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A child process and what it said. */
export class Child {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<number | null>;
  #end: { readonly code: number | null } | undefined;

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv, cwd = ROOT) {
    this.#child = spawn(command, args, { cwd, env, stdio: ['pipe', 'pipe', 'pipe'] });
    running.add(this.#child);
    const keep = (text: string): void => {
      this.#lines.push(...text.split('\n').filter((line) => line !== ''));
      this.#lines.splice(0, this.#lines.length - LINES_MAX);
    };
    this.#child.stderr?.setEncoding('utf8').on('data', keep);
    // Writing to a process that has just ended is no error of the test.
    this.#child.stdin?.on('error', () => {});
    this.#ended = new Promise((done) => {
      this.#child.on('error', (error) => {
        keep(`${command}: ${error.message}`);
        this.#end = { code: null };
        done(null);
      });
      this.#child.on('close', (code) => {
        running.delete(this.#child);
        this.#end = { code };
        done(code);
      });
    });
  }

  /** Its process id. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Whether it runs. */
  get running(): boolean {
    return this.#end === undefined;
  }

  /** What it wrote on standard error, without colours. */
  get log(): string {
    return this.#lines.join('\n').replaceAll(/\u001b\[[0-9;]*m/g, '');
  }

  /** Calls `read` with what it writes on standard output. */
  onOutput(read: (text: string) => void): void {
    this.#child.stdout?.setEncoding('utf8').on('data', read);
  }

  /** Writes to its standard input. */
  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Ends its standard input. */
  endInput(): void {
    this.#child.stdin?.end();
  }

  /** Sends it a signal, while it runs. */
  signal(name: NodeJS.Signals): void {
    if (this.running) this.#child.kill(name);
  }

  /** Its exit code when it has ended, `null` after a signal. */
  ended(patienceMs = END_MS): Promise<number | null> {
    return within(`the end of process ${this.pid}`, this.#ended, patienceMs);
  }

  /** Kills it as a loss of power does. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.ended();
  }

  /** Asks it to end, and kills it when it does not. */
  async stop(): Promise<void> {
    this.signal('SIGTERM');
    try {
      await this.ended();
    } catch (error) {
      await this.kill();
      throw error;
    }
  }
}

/** The first port of our range. */
const PORTS_FROM = 20_000;
/** The range ends below the ports that the system gives to outgoing connections. */
const PORTS = 12_000;

/**
 * A port of the loopback device that is free now. Not one that the system would choose: those are
 * also given to outgoing connections, and a server that is to come back on its port could find it
 * taken by a client.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = PORTS_FROM + Math.floor(Math.random() * PORTS);
    const free = await new Promise<boolean>((done) => {
      const probe = createServer();
      probe.once('error', () => done(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => done(true)));
    });
    if (free) return port;
  }
  throw new Error('no free port in 100 attempts');
}
