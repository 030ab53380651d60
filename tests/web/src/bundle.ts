// Bundles of the small programs that run in pages and child processes, made in memory by esbuild.

import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Where a program runs. */
export type Platform = 'browser' | 'node';

const bundles = new Map<string, Promise<string>>();

/** The program in `src/`, as one file of JavaScript. */
export function bundle(name: string, platform: Platform): Promise<string> {
  const known = bundles.get(name);
  if (known !== undefined) return known;
  const made = make(name, platform);
  bundles.set(name, made);
  return made;
}

async function make(name: string, platform: Platform): Promise<string> {
  const built = await build({
    entryPoints: [fileURLToPath(new URL(name, import.meta.url))],
    bundle: true,
    write: false,
    platform,
    format: platform === 'node' ? 'cjs' : 'iife',
    target: platform === 'node' ? 'node20' : 'es2023',
    logLevel: 'error',
    // The providers import `ws` for Node; browsers have their own.
    external: platform === 'browser' ? ['ws'] : [],
  });
  const file = built.outputFiles[0];
  if (file === undefined) throw new Error(`esbuild made nothing of ${name}`);
  return file.text;
}
