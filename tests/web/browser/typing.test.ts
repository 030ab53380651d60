// Several tabs of one browser type at the same time in the text page of the demo.

import { describe, expect } from 'vitest';
import { DemoTab, sameText } from '../src/demo-tab.ts';
import { cat } from '../src/native.ts';
import { PATHS, protocolOf } from '../src/paths.ts';
import { test } from '../src/world.ts';

const KEYSTROKES = 60;
/** Between two keystrokes of a tab: faster than anybody types. */
const DELAY_MS = 20;

/** What a tab types: letters that no other tab types, in an order that a loss or a swap disturbs. */
function keystrokes(tab: number): string {
  const letters = 'abcdefghijklmnopqrstuvwxy'.slice(tab * 5, tab * 5 + 5);
  return Array.from({ length: KEYSTROKES }, (_, at) => letters[(at * at + at) % 5] ?? '').join('');
}

/** What of a text was typed by a tab. */
function partOf(text: string, tab: number): string {
  const letters = new Set(keystrokes(tab));
  return [...text].filter((letter) => letters.has(letter)).join('');
}

describe.each(PATHS)('%s', (name, open) => {
  test('two tabs that type at once converge, and then five', async ({ world }) => {
    const { server, door } = await open(world);
    const { context } = await world.browser();
    const document = 'typing';
    const tabs: DemoTab[] = [];
    let text = '';
    for (const count of [2, 5]) {
      for (let tab = tabs.length; tab < count; tab += 1) {
        tabs.push(await DemoTab.open(context, door, { document, name: `Tab ${tab}` }));
      }
      const before = text;
      await Promise.all(tabs.map((tab, index) => tab.type(keystrokes(index), DELAY_MS)));
      const length = before.length + count * KEYSTROKES;
      text = await sameText(tabs, (text) => text.length === length);
      for (const index of tabs.keys()) {
        // What was typed before, and what was typed now where the cursor was: at its end.
        expect(partOf(text, index)).toBe(partOf(before, index) + keystrokes(index));
      }
      for (const tab of tabs) await tab.says('saved');
      expect(await cat(server.door, { document })).toBe(text);
    }

    const protocols = await tabs[0]?.tab.evaluate(() => [
      ...new Set(
        performance
          .getEntriesByType('resource')
          .filter((entry) => entry.name.includes('/Publish'))
          .map((entry) => (entry as PerformanceResourceTiming).nextHopProtocol),
      ),
    ]);
    expect(protocols).toEqual([protocolOf(name)]);
  });
});
