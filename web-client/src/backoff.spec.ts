// Delays after losses.
import { expect, it } from 'vitest';
import { Backoff, DELAY_MAX, FIRST_MAX, STABLE } from './backoff.js';

it('pitfall 13: ten thousand clients that lose their server come back spread out', () => {
  const delays = Array.from({ length: 10_000 }, () => {
    const backoff = new Backoff();
    for (let loss = 0; loss < 7; loss++) backoff.afterLoss(undefined);
    return backoff.afterLoss(undefined);
  });
  const perSecond = new Array<number>(30).fill(0);
  for (const delay of delays) {
    const second = Math.floor(delay / 1000);
    perSecond[second] = (perSecond[second] ?? 0) + 1;
  }
  // Evenly over 30 s would be 333 in each second.
  expect(perSecond).toHaveLength(30);
  expect(Math.max(...perSecond)).toBeLessThan(450);
  expect(Math.min(...perSecond)).toBeGreaterThan(200);
});

it('no delay is longer than its bound, which doubles up to 30 s', () => {
  const backoff = new Backoff(() => 1);
  const delays = Array.from({ length: 12 }, () => backoff.afterLoss(undefined));
  expect(delays.slice(0, 4)).toEqual([FIRST_MAX, 500, 1000, 2000]);
  expect(Math.max(...delays)).toBe(DELAY_MAX);
});

it('the server is not asked before it wants to be', () => {
  expect(new Backoff(() => 0).afterLoss(undefined, 90_000)).toBe(90_000);
});

it('only a session that was stable for 30 s starts the delays anew', () => {
  const backoff = new Backoff(() => 1);
  for (let i = 0; i < 5; i++) backoff.afterLoss(STABLE - 1);
  expect(backoff.afterLoss(STABLE - 1)).toBe(8000);
  expect(backoff.afterLoss(STABLE)).toBe(FIRST_MAX);
});
