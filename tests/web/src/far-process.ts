// A participant in a process of its own, which can be stopped, continued and killed.

import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundle } from './bundle.ts';
import type { Answer, Call } from './far.ts';
import { type Options, type Remote, remote } from './participant.ts';
import { within } from './wait.ts';

type Unnumbered = Call extends infer C ? (C extends Call ? Omit<C, 'id'> : never) : never;

/** The process of one participant. */
export class FarProcess {
  readonly participant: Remote;
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #waiting = new Map<number, (value: unknown) => void>();
  readonly #ended: Promise<unknown>;
  #calls = 0;

  private constructor(child: ChildProcess, directory: string) {
    this.#child = child;
    this.#directory = directory;
    this.#ended = new Promise((done) => child.once('exit', done));
    child.on('message', (answer: Answer) => {
      this.#waiting.get(answer.id)?.(answer.value);
      this.#waiting.delete(answer.id);
    });
    this.participant = remote((method, args) => this.#call({ method, args }));
  }

  /** Starts the process and opens a participant in it. */
  static async open(options: Options): Promise<FarProcess> {
    const directory = mkdtempSync(join(tmpdir(), 'cowrite-far-'));
    const program = join(directory, 'far.cjs');
    writeFileSync(program, await bundle('far.ts', 'node'));
    const far = new FarProcess(
      fork(program, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }),
      directory,
    );
    await far.#call({ open: options });
    return far;
  }

  #call(call: Unnumbered): Promise<unknown> {
    const id = (this.#calls += 1);
    const answered = new Promise<unknown>((done) => this.#waiting.set(id, done));
    this.#child.send({ ...call, id });
    return within(`process ${this.#child.pid} to answer`, answered);
  }

  /** It no longer runs, but its sockets stay open, as in a laptop that went to sleep. */
  freeze(): void {
    this.#child.kill('SIGSTOP');
  }

  /** It goes on. */
  thaw(): void {
    this.#child.kill('SIGCONT');
  }

  /** Kills it, without a word to the server. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await within(`the end of process ${this.#child.pid}`, this.#ended);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
