// Files run side by side, each with servers of its own: most of their time is waiting.
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: {
    // The browser client as it was built last, on the same copy of Yjs as the providers.
    alias: {
      'cowrite-client': fileURLToPath(new URL('../../web-client/dist/index.js', import.meta.url)),
    },
    dedupe: ['yjs', 'y-protocols', 'lib0'],
  },
  test: {
    include: ['yjs/**/*.test.ts'],
    environment: 'node',
    pool: 'forks',
    maxWorkers: 4,
    fileParallelism: true,
    // Every wait of a test has a bound of its own; these catch what forgot it.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    retry: 0,
    allowOnly: false,
  },
});
