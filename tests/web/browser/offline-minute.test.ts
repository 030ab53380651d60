// A minute without a network, as in a train: longer than any heartbeat and any patience.

import { expect } from 'vitest';
import { cat } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import { pause, until } from '../src/wait.ts';
import { test } from '../src/world.ts';
import { words } from '../src/words.ts';

const OFFLINE_MS = 60_000;
/** The client may wait for up to 30 s between two attempts, but not once the network is back. */
const BACK_MS = 5_000;

test('two tabs that type, one of them offline for a minute, have everything once', async ({
  world,
}) => {
  const { server, door } = await path('directly over HTTP/2 with TLS')(world, {
    'session.heartbeat_interval': '5s',
    'session.heartbeat_timeout': '15s',
  });
  const browser = await world.browser();
  const document = 'minute';
  const stays = await OwnTab.open(await browser.person(), door, { document });
  const goes = await OwnTab.open(browser.context, door, { document });
  await stays.page.startTyping('stays', 200);
  await goes.page.startTyping('goes', 200);
  await pause(2_000);

  await browser.context.setOffline(true);
  await until(
    'the tab to notice',
    async () => (await goes.page.state()) === 'offline-kept',
    40_000,
  );
  const claimed = await goes.page.claimed();
  await pause(OFFLINE_MS);
  expect(await goes.page.claimed()).toBe(claimed);
  expect(await goes.page.state()).toBe('offline-kept');
  const there = words(await cat(server.door, { document }));
  expect(words(claimed).filter((word) => !there.includes(word))).toEqual([]);

  await browser.context.setOffline(false);
  await goes.synced(BACK_MS);
  const typed = [
    ...Array.from({ length: await stays.page.stopTyping() }, (_, at) => `stays${at + 1};`),
    ...Array.from({ length: await goes.page.stopTyping() }, (_, at) => `goes${at + 1};`),
  ];
  // Five a second, all the time.
  expect(typed.length).toBeGreaterThan((2 * OFFLINE_MS) / 200);
  await stays.saved();
  await goes.saved();
  await until('both to have the same', async () => {
    const [one, other] = [await stays.page.text(), await goes.page.text()];
    return one === other && words(one).length === typed.length;
  });
  expect(words(await cat(server.door, { document })).sort()).toEqual(typed.sort());
}, 120_000);
