// However fast somebody types: one call at a time, with all that was typed meanwhile.

import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import { test } from '../src/world.ts';

const CALLS_PER_SECOND_MAX = 250;
const MS = 2_000;

describe.each(['directly over HTTP/1.1', 'through Envoy over HTTP/2 with TLS'])('%s', (name) => {
  test('pushes stay below 250 calls a second at any speed of typing', async ({ world }) => {
    const { server, door } = await path(name)(world);
    const { context } = await world.browser();
    const document = 'pushes';
    const tab = await OwnTab.open(context, door, { document, persistence: false });
    let calls = 0;
    let inFlight = 0;
    let inFlightMax = 0;
    const isPush = (request: { url(): string }): boolean => request.url().endsWith('/Publish');
    tab.tab.on('request', (request) => {
      if (!isPush(request)) return;
      calls += 1;
      inFlight += 1;
      inFlightMax = Math.max(inFlightMax, inFlight);
    });
    const over = (request: { url(): string }): void => {
      if (isPush(request)) inFlight -= 1;
    };
    tab.tab.on('requestfinished', over);
    tab.tab.on('requestfailed', over);

    let typed = 0;
    for (const perSecond of [20, 200, 2_000, 20_000]) {
      await tab.saved();
      calls = 0;
      const began = performance.now();
      const count = await tab.page.hammer(perSecond, MS);
      await tab.saved();
      const seconds = (performance.now() - began) / 1000;
      typed += count;
      expect(calls).toBeGreaterThan(0);
      expect(calls).toBeLessThanOrEqual(count + 1);
      expect(calls / seconds).toBeLessThanOrEqual(CALLS_PER_SECOND_MAX);
    }
    expect(inFlightMax).toBe(1);
    expect(await cat(server.door, { document })).toBe('x'.repeat(typed));
  });
});
