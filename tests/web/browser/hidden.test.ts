// A tab that is hidden for long stays in the document, although its timers hardly run.

import { expect } from 'vitest';
import { BackgroundTabs } from '../src/background-tabs.ts';
import { DemoTab } from '../src/demo-tab.ts';
import { type } from '../src/native.ts';
import { pause, until } from '../src/wait.ts';
import { test } from '../src/world.ts';

const TIMEOUT_S = 3;
const HIDDEN_MS = 12_000;

test('a tab hidden for four heartbeat timeouts is never evicted', async ({ world }) => {
  const server = await world.server({
    'session.heartbeat_interval': '1s',
    'session.heartbeat_timeout': `${TIMEOUT_S}s`,
  });
  const browser = await BackgroundTabs.launch();
  world.defer(() => browser.close());
  await browser.slowTimers();
  const document = 'hidden';
  const hidden = await DemoTab.open(browser.context, server.door, { document, name: 'Hilda' });
  await hidden.tab.bringToFront();
  await hidden.editor.click();
  await hidden.type('before');
  await until('the text', async () => (await hidden.text()) === 'before');
  await hidden.says('saved');
  await hidden.tab.evaluate(() => {
    const seen: string[] = [];
    const state = globalThis.document.querySelector('[data-testid=connection]');
    new MutationObserver(() => seen.push(state?.getAttribute('data-status') ?? '')).observe(
      globalThis.document.documentElement,
      { subtree: true, attributeFilter: ['data-status'] },
    );
    let ticks = 0;
    setInterval(() => (ticks += 1), 100);
    Object.assign(globalThis, { look: () => ({ seen, ticks }) });
  });
  const look = (): Promise<{ seen: string[]; ticks: number; visibility: string }> =>
    hidden.tab.evaluate(() => ({
      ...(globalThis as unknown as { look(): { seen: string[]; ticks: number } }).look(),
      visibility: globalThis.document.visibilityState,
    }));

  const front = await browser.context.newPage();
  await front.bringToFront();
  await until('the tab to be hidden', async () => (await look()).visibility === 'hidden');
  const before = (await look()).ticks;
  await pause(HIDDEN_MS);

  const after = await look();
  expect(after.visibility).toBe('hidden');
  // Chromium did slow it down: a timer for each tenth of a second ran once a second or less.
  expect(after.ticks - before).toBeLessThanOrEqual(HIDDEN_MS / 1000 + 1);
  expect(after.seen).toEqual([]);
  expect(await hidden.status()).toBe('connected');
  expect(await server.metric('cowrite_sessions_opened_total')).toBe(1);
  expect(await server.metric('cowrite_sessions_closed_total')).toBe(0);

  // It hears of edits while it is hidden, and can make some at once when it is shown.
  await type(server.door, { document }, ', meanwhile');
  await until(
    async () => `the hidden tab to have the edit; it has ${await hidden.text()}`,
    async () => (await hidden.text()) === 'before, meanwhile',
  );
  await hidden.tab.bringToFront();
  await hidden.editor.press('End');
  await hidden.type(', after');
  await until('the text', async () => (await hidden.text()).length === 24);
  await hidden.says('saved');
});
