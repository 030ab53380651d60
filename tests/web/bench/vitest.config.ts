// The benchmark: `npm run bench`. One after the other, or they would measure each other.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['bench/latency.ts'],
    pool: 'forks',
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 900_000,
    disableConsoleIntercept: true,
  },
});
