// Files run side by side, each with servers of its own: most of their time is waiting.
import { defineConfig } from 'vitest/config'

export default defineConfig({
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
})
