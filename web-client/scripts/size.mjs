// What the main entry weighs in an application: bundled with everything but yjs, y-protocols and
// lib0, which the application has anyway, minified and compressed. Fails above the budget.
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

const BUDGET_BYTES = 45 * 1024;

const output = await build({
  configFile: false,
  logLevel: 'warn',
  build: {
    target: 'es2022',
    write: false,
    minify: true,
    // As an application and not as a library: for those, Vite leaves white space alone.
    rolldownOptions: {
      input: 'src/index.ts',
      external: [/^(yjs|y-protocols|lib0)(\/|$)/],
      preserveEntrySignatures: 'strict',
    },
  },
});
const chunks = [output].flat().flatMap(({ output }) => output);
const bytes = chunks.reduce((sum, chunk) => sum + gzipSync(chunk.code ?? '').length, 0);
const kib = (bytes / 1024).toFixed(1);
console.log(`main entry: ${kib} KiB gzipped, budget ${BUDGET_BYTES / 1024} KiB`);
if (bytes > BUDGET_BYTES) process.exit(1);
