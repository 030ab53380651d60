// Builds the demo: one page, hashed assets, and gzip siblings of what is worth compressing.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import { defineConfig, type Plugin } from 'vite';

const client = fileURLToPath(new URL('../src/index.ts', import.meta.url));

/** Texts from this size on get a `.gz` sibling; below, the header of the answer weighs as much. */
const GZIP_BYTES_MIN = 1024;

/** Writes `FILE.gz` beside each text file of the build, because the server does not compress. */
function gzipSiblings(): Plugin {
  let directory = '';
  return {
    name: 'gzip-siblings',
    apply: 'build',
    configResolved(config) {
      directory = join(config.root, config.build.outDir);
    },
    async closeBundle() {
      const compress = promisify(gzip);
      for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg|json|txt)$/.test(entry.name)) continue;
        const path = join(entry.parentPath, entry.name);
        const bytes = await readFile(path);
        if (bytes.length < GZIP_BYTES_MIN) continue;
        await writeFile(`${path}.gz`, await compress(bytes, { level: 9 }));
      }
    },
  };
}

/** Holds the first paint until the script ran, so that a chosen theme does not flash. */
function renderBlockingEntry(): Plugin {
  return {
    name: 'render-blocking-entry',
    apply: 'build',
    transformIndexHtml: {
      order: 'post',
      handler: (html) =>
        html.replace('<script type="module"', '<script type="module" blocking="render"'),
    },
  };
}

export default defineConfig({
  plugins: [renderBlockingEntry(), gzipSiblings()],
  resolve: {
    alias: { 'cowrite-client': client },
    // The library is imported as source and has its own node_modules: two copies of these would not
    // recognise each other's types.
    dedupe: ['yjs', 'lib0', 'y-protocols'],
  },
  server: { port: 5173, strictPort: true },
  build: {
    target: ['chrome123', 'firefox125', 'safari17.5'],
    // No data: URLs: the content security policy of the server allows none.
    assetsInlineLimit: 0,
    // The polyfill would be for browsers older than the target.
    modulePreload: { polyfill: false },
  },
});
