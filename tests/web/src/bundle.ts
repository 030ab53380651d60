// Bundles of the small programs that run in pages and child processes, made in memory by esbuild.

import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';

/** Where a program runs. */
export type Platform = 'browser' | 'node';

/** The browser client as it was built last. */
const CLIENT = fileURLToPath(new URL('../../../web-client/dist/', import.meta.url));

/** Packages of which there must be one copy in a bundle, also where the client imports them. */
const SINGLE = /^(yjs|lib0|y-protocols|react)(\/|$)/;

/** Finds the browser client, and one copy of what it shares with the tests. */
const client: Plugin = {
  name: 'client',
  setup(build) {
    build.onResolve({ filter: /^cowrite-client(\/react)?$/ }, ({ path }) => ({
      path: `${CLIENT}${path.endsWith('/react') ? 'react' : 'index'}.js`,
    }));
    build.onResolve({ filter: SINGLE }, ({ path, kind, pluginData, resolveDir }) =>
      pluginData === 'single' || !resolveDir.startsWith(CLIENT.slice(0, -1))
        ? undefined
        : build.resolve(path, {
            kind,
            resolveDir: fileURLToPath(new URL('.', import.meta.url)),
            pluginData: 'single',
          }),
    );
  },
};

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
    plugins: [client],
    // React warns of misuse, and mounts twice in strict mode, only in its development build.
    define: { 'process.env.NODE_ENV': '"development"' },
    // The providers import `ws` for Node; browsers have their own.
    external: platform === 'browser' ? ['ws'] : [],
  });
  const file = built.outputFiles[0];
  if (file === undefined) throw new Error(`esbuild made nothing of ${name}`);
  return file.text;
}
