// A native gRPC client in the same documents: the commands of the `cowrite` binary.

import { Child, plainEnvironment } from './process.ts';
import { binary, type Door } from './server.ts';
import { until } from './wait.ts';

/** Which document, as whom. */
export interface NativeOptions {
  readonly document: string;
  /** The credentials, where the server asks for them. */
  readonly token?: string;
}

function command(
  name: string,
  door: Door,
  options: NativeOptions,
  flags: readonly string[],
): Child {
  const token = options.token === undefined ? [] : ['--token', options.token];
  const args = [name, '--server', door.http, ...token, ...flags, options.document];
  return new Child(binary(), args, plainEnvironment());
}

async function finished(child: Child): Promise<void> {
  const code = await child.ended();
  if (code !== 0) throw new Error(`the command ended with ${code}: ${child.log}`);
}

/** Types `text` at the end of the document. Returns when it is on the server's disk. */
export async function type(door: Door, options: NativeOptions, text: string): Promise<void> {
  const child = command('type', door, options, []);
  child.write(text);
  child.endInput();
  await finished(child);
}

/** The text of the document. */
export async function cat(door: Door, options: NativeOptions): Promise<string> {
  const child = command('cat', door, options, []);
  let output = '';
  child.onOutput((text) => {
    output += text;
  });
  await finished(child);
  return output.replace(/\n$/, '');
}

/** A native client that stays in a document and shows its text. */
export class Follower {
  readonly #child: Child;
  #output = '';

  constructor(door: Door, options: NativeOptions) {
    this.#child = command('cat', door, options, ['--follow']);
    this.#child.onOutput((text) => {
      this.#output += text;
    });
  }

  /** Waits until the text is this one. */
  async shows(text: string): Promise<void> {
    await until(
      () =>
        `the native client to show ${JSON.stringify(text)}; it has ${JSON.stringify(this.#output)}; ${this.#child.log}`,
      // One version after the other, each with an end of line: no text is the end of another here.
      () => `\n${this.#output}`.endsWith(`\n${text}\n`),
    );
  }

  /** Ends it. */
  async stop(): Promise<void> {
    await this.#child.kill();
  }
}
