// Builds the demo: one page, hashed assets, and gzip siblings of what is worth compressing.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzip, gzipSync } from 'node:zlib';

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

/** What the text page may load at the most, compressed, in bytes. */
const TEXT_PAGE_BYTES_MAX = 250 * 1024;

/** Says how much script each page loads, and fails the build when the text page loads too much. */
function pageBudget(): Plugin {
  const pages = {
    list: ['list-page'],
    text: ['document-page', 'text-editor'],
    rich: ['document-page', 'rich-editor'],
  };
  return {
    name: 'page-budget',
    apply: 'build',
    generateBundle(_options, bundle) {
      const chunks = Object.values(bundle).filter((part) => part.type === 'chunk');
      const load = (file: string, loaded: Set<string>) => {
        const chunk = chunks.find(({ fileName }) => fileName === file);
        if (!chunk || loaded.has(file)) return;
        loaded.add(file);
        for (const other of chunk.imports) load(other, loaded);
      };
      for (const [page, names] of Object.entries(pages)) {
        const loaded = new Set<string>();
        for (const { fileName, isEntry, name } of chunks) {
          if (isEntry || names.includes(name)) load(fileName, loaded);
        }
        const codes = chunks.filter(({ fileName }) => loaded.has(fileName)).map(({ code }) => code);
        const bytes = codes.reduce((sum, code) => sum + gzipSync(code, { level: 9 }).length, 0);
        this.info(`the ${page} page loads ${(bytes / 1024).toFixed(1)} KiB of script, compressed`);
        if (page === 'text' && bytes > TEXT_PAGE_BYTES_MAX)
          this.error('the text page has grown too large');
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
  plugins: [renderBlockingEntry(), pageBudget(), gzipSiblings()],
  resolve: {
    alias: { 'cowrite-client': client },
    // The library is imported as source and has its own node_modules: two copies of these would not
    // recognise each other's types.
    dedupe: ['yjs', 'lib0', 'y-protocols'],
  },
  server: { host: '127.0.0.1', port: 5173, strictPort: true },
  build: {
    target: ['chrome123', 'firefox125', 'safari17.5'],
    // No data: URLs: the content security policy of the server allows none.
    assetsInlineLimit: 0,
    // The polyfill would be for browsers older than the target.
    modulePreload: { polyfill: false },
  },
});
