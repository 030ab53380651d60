// However fast somebody types: one call at a time, with all that was typed meanwhile.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import { test } from '../src/world.ts';

const CALLS_PER_SECOND_MAX = 250;
const MS = 2_000;
/** Browsers round the times that they tell pages. */
const ROUNDING_MS = 0.2;

describe.each(['directly over HTTP/1.1', 'through Envoy over HTTP/2 with TLS'])('%s', (name) => {
  test('pushes stay below 250 calls a second at any speed of typing', async ({ world }) => {
    const { server, door } = await path(name)(world);
    const { context } = await world.browser();
    const document = 'pushes';
    const tab = await OwnTab.open(context, door, { document, persistence: false });
    await tab.tab.evaluate(() => performance.setResourceTimingBufferSize(100_000));
    /** When each push began and ended, by the browser's clock. */
    const pushes = (): Promise<{ began: number; ended: number }[]> =>
      tab.tab.evaluate(() =>
        performance
          .getEntriesByType('resource')
          .filter((entry) => entry.name.endsWith('/Publish'))
          .map((entry) => ({ began: entry.startTime, ended: entry.startTime + entry.duration })),
      );

    let typed = 0;
    for (const perSecond of [20, 200, 2_000, 20_000]) {
      await tab.saved();
      const before = (await pushes()).length;
      const began = performance.now();
      const count = await tab.page.hammer(perSecond, MS);
      await tab.saved();
      const seconds = (performance.now() - began) / 1000;
      typed += count;
      const calls = (await pushes()).length - before;
      expect(calls).toBeGreaterThan(0);
      expect(calls).toBeLessThanOrEqual(count + 1);
      expect(calls / seconds).toBeLessThanOrEqual(CALLS_PER_SECOND_MAX);
    }
    const all = await pushes();
    const early = all.filter(({ began }, at) => began < (all[at - 1]?.ended ?? 0) - ROUNDING_MS);
    expect(early).toEqual([]);
    expect(await cat(server.door, { document })).toBe('x'.repeat(typed));
  });
});
