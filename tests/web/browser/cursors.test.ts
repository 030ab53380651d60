// Cursors of others: there while somebody is, gone when he is gone, however he went.

import { describe, expect } from 'vitest';
import { crash } from '../src/browser.ts';
import { DemoTab, sameText } from '../src/demo-tab.ts';
import { path, PATHS } from '../src/paths.ts';
import type { Settings } from '../src/server.ts';
import { test } from '../src/world.ts';

const TIMEOUT_MS = 3_000;
const heartbeats: Settings = {
  'session.heartbeat_interval': '1s',
  'session.heartbeat_timeout': `${TIMEOUT_MS}ms`,
};
/** What else it takes on a busy machine. */
const SLACK_MS = 2_000;
/** Longer than any heartbeat: who goes faster was not found out by one. */
const slow: Settings = {
  'session.heartbeat_interval': '30s',
  'session.heartbeat_timeout': '90s',
};

describe.each(PATHS)('%s', (_, open) => {
  test('the cursors of a closed and of a crashed tab vanish at once', async ({ world }) => {
    const { door } = await open(world, slow);
    const browser = await world.browser();
    const document = 'cursors';
    const watcher = await DemoTab.open(browser.context, door, { document, name: 'Wanda' });
    const others = await browser.person();
    const closing = await DemoTab.open(others, door, { document, name: 'Claire' });
    await closing.type('claire');
    const crashing = await DemoTab.open(others, door, { document, name: 'Craig' });
    await crashing.type('craig');
    await watcher.showsCarets(['Claire', 'Craig']);
    await watcher.showsPeople(['Claire', 'Craig', 'Wanda']);

    await closing.tab.close();
    await watcher.showsCarets(['Craig'], SLACK_MS);
    await crash(crashing.tab);
    await watcher.showsCarets([], SLACK_MS);
    await watcher.showsPeople(['Wanda']);
  });
});

describe.each(['directly over HTTP/1.1', 'through Envoy over HTTP/2 with TLS'])('%s', (name) => {
  test('the cursor of a browser that hangs vanishes with the heartbeat, and comes back', async ({
    world,
  }) => {
    const { server, door } = await path(name)(world, heartbeats);
    const document = 'hang';
    const watcher = await DemoTab.open((await world.browser()).context, door, {
      document,
      name: 'Wanda',
    });
    const hanging = await world.browser();
    const sleeper = await DemoTab.open(hanging.context, door, { document, name: 'Sam' });
    await sleeper.type('sam');
    await watcher.showsCarets(['Sam']);

    const began = performance.now();
    hanging.freeze();
    await watcher.showsCarets([], TIMEOUT_MS + SLACK_MS);
    // It was the heartbeat, and nothing before it.
    expect(performance.now() - began).toBeGreaterThan(TIMEOUT_MS / 2);
    expect(await server.metric('cowrite_sessions_closed_total')).toBe(1);
    await watcher.type('meanwhile, ');

    hanging.thaw();
    await watcher.showsPeople(['Sam', 'Wanda']);
    await sleeper.ready();
    await sameText(
      [watcher, sleeper],
      (text) => text.includes('sam') && text.includes('meanwhile'),
    );
    await sleeper.type(' woke up');
    await watcher.showsCarets(['Sam']);
    await watcher.says('saved');
    await sleeper.says('saved');
  });
});
