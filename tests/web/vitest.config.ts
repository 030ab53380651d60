// Files run side by side, each with servers of its own: most of their time is waiting.
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The file that waits for longest begins first, so that the others run meanwhile. */
class SilenceFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isSilence = (file: TestSpecification): boolean => file.moduleId.includes('/silence.');
    return [...sorted.filter(isSilence), ...sorted.filter((file) => !isSilence(file))];
  }
}

export default defineConfig({
  resolve: {
    // The browser client as it was built last, on the same copy of Yjs as the providers.
    alias: {
      'cowrite-client': fileURLToPath(new URL('../../web-client/dist/index.js', import.meta.url)),
    },
    dedupe: ['yjs', 'y-protocols', 'lib0'],
  },
  test: {
    include: ['yjs/**/*.test.ts', 'browser/**/*.test.ts'],
    environment: 'node',
    pool: 'forks',
    maxWorkers: 4,
    fileParallelism: true,
    sequence: { sequencer: SilenceFirst },
    // Every wait of a test has a bound of its own; these catch what forgot it.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    retry: 0,
    allowOnly: false,
  },
});
