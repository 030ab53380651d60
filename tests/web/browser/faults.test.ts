// The server or the proxy dies while people type. What was said to be saved is on the server
// afterwards, everything typed is there once, and everybody has the same.

import type { BrowserContext } from 'playwright-core';
import { describe, expect } from 'vitest';
import { cat } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { type Path, PATHS, PROXIED } from '../src/paths.ts';
import { pause, until } from '../src/wait.ts';
import { test } from '../src/world.ts';
import { words } from '../src/words.ts';

const DOCUMENT = 'faults';
const EVERY_MS = 25;
/** How long people type before, between and after. */
const TYPING_MS = 1_500;
/** More than the client waits before it comes back after a few failures. */
const BACK_MS = 25_000;

async function typists(path: Path, context: BrowserContext): Promise<readonly [OwnTab, OwnTab]> {
  const [ada, bob] = [
    await OwnTab.open(context, path.door, { document: DOCUMENT, user: 'Ada' }),
    await OwnTab.open(context, path.door, { document: DOCUMENT, user: 'Bob' }),
  ];
  await ada.page.startTyping('ada', EVERY_MS);
  await bob.page.startTyping('bob', EVERY_MS);
  return [ada, bob];
}

/** Ends the typing, and checks that everything is everywhere once. */
async function allIsThere(path: Path, tabs: readonly [OwnTab, OwnTab]): Promise<void> {
  const typed: string[] = [];
  for (const [index, tab] of tabs.entries()) {
    const count = await tab.page.stopTyping();
    const name = index === 0 ? 'ada' : 'bob';
    for (let word = 1; word <= count; word += 1) typed.push(`${name}${word};`);
  }
  for (const tab of tabs) await tab.saved(BACK_MS);
  await until('both tabs to have the same', async () => {
    const [one, other] = [await tabs[0].page.text(), await tabs[1].page.text()];
    return one === other && words(one).length === typed.length;
  });
  const text = await cat(path.server.door, { document: DOCUMENT });
  expect(words(text).sort()).toEqual(typed.sort());
  expect(text).toBe(await tabs[0].page.text());
}

/** What the tabs were told is saved, now. */
async function claims(tabs: readonly OwnTab[]): Promise<string[]> {
  const claimed = await Promise.all(tabs.map((tab) => tab.page.claimed()));
  return claimed.flatMap((text) => words(text));
}

describe.each(PATHS)('%s', (_, open) => {
  test('a server that is killed while two tabs type has all that was said to be saved', async ({
    world,
  }) => {
    const path = await open(world);
    const { context } = await world.browser();
    const tabs = await typists(path, context);
    for (let round = 0; round < 2; round += 1) {
      await pause(TYPING_MS);
      await path.server.kill9();
      // What it had acknowledged may still be on its way through the proxy. When the tabs have lost
      // their sessions nothing more can come before it runs again.
      for (const tab of tabs) {
        await until('a tab to notice', async () => (await tab.page.status()) !== 'connected');
      }
      const claimed = await claims(tabs);
      expect(claimed.length).toBeGreaterThan(0);
      await pause(TYPING_MS / 2);
      expect(await claims(tabs)).toEqual(claimed);
      await path.server.restart();
      const text = await cat(path.server.door, { document: DOCUMENT });
      const there = new Set(words(text));
      expect(claimed.filter((word) => !there.has(word))).toEqual([]);
      for (const tab of tabs) await tab.synced(BACK_MS);
    }
    await pause(TYPING_MS);
    await allIsThere(path, tabs);
  });
});

describe.each(PROXIED)('%s', (_, open) => {
  test('Envoy is killed while two tabs type', async ({ world }) => {
    const path = await open(world);
    const { context } = await world.browser();
    const tabs = await typists(path, context);
    for (let round = 0; round < 2; round += 1) {
      await pause(TYPING_MS);
      await path.envoy?.kill9();
      for (const tab of tabs) {
        await until('a tab to notice', async () => (await tab.page.status()) !== 'connected');
      }
      const there = new Set(words(await cat(path.server.door, { document: DOCUMENT })));
      expect((await claims(tabs)).filter((word) => !there.has(word))).toEqual([]);
      await pause(TYPING_MS / 2);
      await path.envoy?.restart();
      for (const tab of tabs) await tab.synced(BACK_MS);
    }
    await pause(TYPING_MS);
    await allIsThere(path, tabs);
  });
});
