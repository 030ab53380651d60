// Without a network: what is typed is kept in the browser, also over a reload, and nothing is said
// to be saved that is not.

import { describe, expect } from 'vitest';
import { DemoTab, sameText } from '../src/demo-tab.ts';
import { cat, type } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path, PATHS } from '../src/paths.ts';
import { pause, until } from '../src/wait.ts';
import { test } from '../src/world.ts';
import { words } from '../src/words.ts';

const BACK_MS = 35_000;

describe.each(PATHS)('%s', (_, open) => {
  test('edits made offline survive a reload and are there once', async ({ world }) => {
    const { server, door } = await open(world);
    const browser = await world.browser();
    const document = 'offline';
    const tab = await OwnTab.open(browser.context, door, { document });
    await tab.page.type('before;');
    await tab.saved();
    await browser.context.setOffline(true);
    await tab.page.type('offline;');
    await until(
      async () => `the edit to be kept; the tab was told ${JSON.stringify(await tab.page.told())}`,
      async () => (await tab.page.state()) === 'offline-kept',
    );
    expect(await tab.page.claimed()).toBe('before;');
    await type(server.door, { document }, 'meanwhile;');

    // The page comes from the test: only the server cannot be reached.
    await tab.load();
    await tab.page.open({ document });
    await until('the kept edit', async () => (await tab.page.text()) === 'before;offline;');
    await until('it to be unsaved', async () => (await tab.page.state()) === 'offline-kept');
    expect(await tab.page.claimed()).toBe('');
    await tab.page.type('reloaded;');
    await pause(500);
    expect(await cat(server.door, { document })).toBe('before;meanwhile;');

    await browser.context.setOffline(false);
    await tab.saved(BACK_MS);
    const text = await cat(server.door, { document });
    expect(words(text).sort()).toEqual(['before;', 'meanwhile;', 'offline;', 'reloaded;']);
    await until('the tab to have it', async () => (await tab.page.text()) === text);
    // And once more, now that everything is saved: the copy in the browser doubles nothing.
    await tab.load();
    await tab.page.open({ document });
    await tab.synced();
    expect(await tab.page.text()).toBe(text);
    await tab.saved();
  });
});

test('the demo keeps what is typed offline, says so, and merges it after a reload', async ({
  world,
}) => {
  const { server, door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  const document = 'notes/offline';
  const tab = await DemoTab.open(browser.context, door, { document, name: 'Olga' });
  const other = await DemoTab.open(await browser.person(), door, { document, name: 'Otto' });
  await tab.type('olga ');
  await other.showsCarets(['Olga']);
  await tab.says('saved');

  // The page and its scripts are served; the calls are not.
  const calls = '**/cowrite.v1.CollaborationService/*';
  await tab.tab.route(calls, (route) => route.abort('internetdisconnected'));
  await server.kill9();
  await server.restart();
  await tab.type('offline ');
  await tab.says('offline-kept', BACK_MS);
  await tab.tab.reload();
  await until('the kept text', async () => (await tab.text()) === 'olga offline ');
  await tab.says('offline-kept');
  await other.ready();
  await other.editor.press('Control+Home');
  await other.type('otto ');
  await other.says('saved');

  await tab.tab.unroute(calls);
  await sameText([tab, other], (text) => text === 'otto olga offline ');
  await tab.says('saved');
  expect(await cat(server.door, { document })).toBe('otto olga offline ');
});
