// Files run side by side, each with servers of its own: most of their time is waiting.
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** The files that take longest begin first, in this order, so that the others run meanwhile. */
const LONGEST = ['silence', 'offline-minute', 'typing', 'faults', 'offline', 'recorded'];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`));
      return at < 0 ? LONGEST.length : at;
    };
    return sorted.sort((a, b) => rank(a) - rank(b));
  }
}

const common = {
  environment: 'node',
  pool: 'forks',
  fileParallelism: true,
  hookTimeout: 60_000,
} as const;

export default defineConfig({
  test: {
    projects: [
      {
        resolve: {
          // The browser client as it was built last, on the same copy of Yjs as the providers.
          alias: {
            'cowrite-client': fileURLToPath(
              new URL('../../web-client/dist/index.js', import.meta.url),
            ),
          },
          dedupe: ['yjs', 'y-protocols', 'lib0'],
        },
        test: {
          ...common,
          name: 'yjs',
          include: ['yjs/**/*.test.ts'],
          maxWorkers: 4,
          // Every wait of a test has a bound of its own; these catch what forgot it.
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'browser',
          include: ['browser/**/*.test.ts'],
          // Each worker has a browser or two, which are busier than the tests.
          maxWorkers: 3,
          testTimeout: 90_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    sequence: { sequencer: LongestFirst },
    retry: 0,
    allowOnly: false,
  },
});
