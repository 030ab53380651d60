// The pages of the demo, as people use them.

import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { BrowserContext, Page as Tab } from 'playwright-core';
import { expect } from 'vitest';
import { DemoTab, sameText } from '../src/demo-tab.ts';
import { cat, type } from '../src/native.ts';
import { path } from '../src/paths.ts';
import { ROOT } from '../src/process.ts';
import { until } from '../src/wait.ts';
import { test } from '../src/world.ts';

/** The list is loaded anew every four seconds. */
const LIST_MS = 8_000;

const noise = (console: readonly string[]): string[] =>
  console.filter((line) => /^(error|warning)/.test(line));

/** What has a role that people act on, by role, with the names that screen readers read. */
async function controls(tab: Tab): Promise<{ role: string; name: string }[]> {
  const session = await tab.context().newCDPSession(tab);
  const { nodes } = await session.send('Accessibility.getFullAXTree');
  await session.detach();
  const roles = ['button', 'link', 'textbox', 'searchbox', 'switch', 'radio', 'menuitem', 'img'];
  return nodes
    .filter(({ ignored, role }) => !ignored && roles.includes(String(role?.value)))
    .map(({ role, name }) => ({
      role: String(role?.value),
      name: String(name?.value ?? '').trim(),
    }));
}

/** What is wrong with a page for those who do not see it, or use no mouse. */
async function faults(tab: Tab): Promise<string[]> {
  const nameless = (await controls(tab))
    .filter(({ name }) => name === '')
    .map(({ role }) => `a ${role} without a name`);
  const more = await tab.evaluate(() => {
    const found: string[] = [];
    if (document.documentElement.lang === '') found.push('no language');
    if (document.title === '') found.push('no title');
    if (document.querySelectorAll('main').length !== 1) found.push('not one main part');
    if (document.querySelectorAll('h1').length !== 1) found.push('not one h1');
    if (
      document
        .querySelector('meta[name=viewport]')
        ?.getAttribute('content')
        ?.includes('user-scalable=no')
    )
      found.push('cannot be zoomed');
    if (document.querySelector('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])') !== null)
      found.push('an order of its own for the tab key');
    const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
    if (new Set(ids).size !== ids.length) found.push('two elements with one id');
    for (const hidden of document.querySelectorAll('[aria-hidden=true]')) {
      if (hidden.querySelector('a, button, input, [tabindex="0"]') !== null)
        found.push('something to act on that is hidden from screen readers');
    }
    return found;
  });
  return [...nameless, ...more];
}

/** Lets the pages of a person remember what the content security policy stopped. */
async function watchPolicy(context: BrowserContext): Promise<void> {
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy: ${event.violatedDirective} stopped ${event.blockedURI}`);
    });
  });
}

test('a new document is in the list, and others find who is there', async ({ world }) => {
  const { door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  const reader = await browser.person();
  for (const context of [browser.context, reader]) await watchPolicy(context);
  const list = await reader.newPage();
  const answer = await list.goto(door.http);
  expect(answer?.headers()['content-security-policy']).toContain(
    "default-src 'none'; script-src 'self';",
  );
  await list.getByText('Nothing here yet').waitFor();
  expect(await faults(list)).toEqual([]);

  const tab = await browser.context.newPage();
  await tab.goto(door.http);
  await tab.getByTestId('new-text').click();
  await tab.waitForURL(/\/d\/notes\//);
  const author = new DemoTab(tab);
  await author.ready();
  // Nobody has to click first.
  await author.type('# A title');
  await until('the text', async () => (await author.text()) === '# A title');
  await author.says('saved');
  const document = new URL(tab.url()).pathname.slice('/d/'.length);
  expect(await cat(door, { document })).toBe('# A title');

  const row = list.getByTestId('doc-list').locator(`[data-document="${document}"]`);
  await row.waitFor({ timeout: LIST_MS });
  await until(
    'one to be there',
    async () => (await row.innerText()).includes('1 here now'),
    LIST_MS,
  );
  await row.locator('a').click();
  const other = new DemoTab(list);
  await other.ready();
  await sameText([author, other], (text) => text === '# A title');
  expect(await faults(tab)).toEqual([]);
  expect(noise(browser.console)).toEqual([]);
});

test('names and avatars: everybody sees everybody, and a new name at once', async ({ world }) => {
  const { door } = await path('through Envoy over HTTP/2 with TLS')(world);
  const browser = await world.browser();
  const document = 'notes/people';
  const ada = await DemoTab.open(browser.context, door, { document, name: 'Ada Lovelace' });
  const bob = await DemoTab.open(await browser.person(), door, { document, name: 'Bob' });
  await ada.showsPeople(['Ada Lovelace', 'Bob']);
  await bob.showsPeople(['Ada Lovelace', 'Bob']);
  expect(await bob.tab.getByTestId('people').innerText()).toContain('AL');
  await bob.tab.getByTestId('self').first().click();
  await bob.tab.getByTestId('own-name').fill('Grace Hopper');
  await bob.tab.keyboard.press('Enter');
  await ada.showsPeople(['Ada Lovelace', 'Grace Hopper']);
  await bob.editor.click();
  await bob.type('now');
  await ada.showsCarets(['Grace Hopper']);
  await bob.tab.close();
  await ada.showsPeople(['Ada Lovelace']);
  expect(noise(browser.console)).toEqual([]);
});

test('the offline switch: edits of both sides are kept, and merged when it is off', async ({
  world,
}) => {
  const { door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  const document = 'notes/switch';
  const ada = await DemoTab.open(browser.context, door, { document, name: 'Ada' });
  const bob = await DemoTab.open(await browser.person(), door, { document, name: 'Bob' });
  await ada.type('Ada. ');
  await sameText([ada, bob], (text) => text === 'Ada. ');
  await bob.says('saved');

  const offline = ada.tab.getByTestId('offline-switch');
  expect(await offline.getAttribute('aria-checked')).toBe('false');
  await offline.click();
  expect(await offline.getAttribute('aria-checked')).toBe('true');
  await bob.showsPeople(['Bob']);
  await ada.showsPeople(['Ada']);
  await ada.editor.press('Control+End');
  await ada.type('Ada offline. ');
  await ada.says('offline-kept');
  expect(await ada.tab.getByTestId('save-state').innerText()).toBe('Offline: kept on this device');
  expect(await ada.tab.getByTestId('connection').innerText()).toBe('Working offline');
  await bob.editor.press('Control+Home');
  await bob.type('Bob meanwhile. ');
  await bob.says('saved');
  expect(await ada.text()).toBe('Ada. Ada offline. ');
  expect(await bob.text()).toBe('Bob meanwhile. Ada. ');

  await offline.click();
  await sameText([ada, bob], (text) => text === 'Bob meanwhile. Ada. Ada offline. ');
  await ada.says('saved');
  expect(await ada.tab.getByTestId('save-state').innerText()).toBe('Saved');
  await ada.tab.getByText('Back online. Your edits and those of others are merged.').waitFor();
  await ada.showsPeople(['Ada', 'Bob']);
  expect(await cat(door, { document })).toBe('Bob meanwhile. Ada. Ada offline. ');
  expect(noise(browser.console)).toEqual([]);
});

test('a server that is gone is said, and that edits are kept; then that they are saved', async ({
  world,
}) => {
  const { server, door } = await path('through Envoy over HTTP/2 with TLS')(world);
  const browser = await world.browser();
  const document = 'notes/gone';
  const tab = await DemoTab.open(browser.context, door, { document, name: 'Ada' });
  await tab.type('before ');
  await tab.says('saved');
  await server.kill9();
  await tab.type('while it is gone');
  await tab.says('offline-kept');
  expect(await tab.status()).not.toBe('connected');
  expect(await tab.tab.title()).toContain('●');
  await server.restart();
  await tab.says('saved', 30_000);
  await tab.ready();
  expect(await tab.text()).toBe('before while it is gone');
  expect(await cat(server.door, { document })).toBe('before while it is gone');
});

test('the rich-text page and the way back: names for all controls, nothing on the console', async ({
  world,
}) => {
  const { door } = await path('directly over HTTP/2 with TLS')(world);
  const browser = await world.browser();
  await watchPolicy(browser.context);
  const tab = await browser.context.newPage();
  await tab.goto(door.http);
  await tab.getByTestId('new-rich').click();
  await tab.waitForURL(/\/r\/rich\//);
  const page = new DemoTab(tab);
  await page.ready();
  await page.type('Something rich');
  await page.says('saved');
  expect(await faults(tab)).toEqual([]);
  // Everything can be reached with the keyboard: the tab key goes through all of the bar.
  const reached = new Set<string>();
  await tab.evaluate(() => (document.activeElement as HTMLElement).blur());
  for (let press = 0; press < 12; press += 1) {
    await tab.keyboard.press('Tab');
    reached.add(
      await tab.evaluate(() => document.activeElement?.getAttribute('data-testid') ?? ''),
    );
  }
  expect([...reached]).toEqual(expect.arrayContaining(['self', 'offline-switch']));
  await tab.getByLabel('All documents').click();
  await tab.locator('[data-document^="rich/"]').waitFor({ timeout: LIST_MS });
  expect(noise(browser.console)).toEqual([]);
});

test('text of somebody else is text, also where it looks like markup', async ({ world }) => {
  const { door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  await watchPolicy(browser.context);
  const document = 'notes/markup';
  const evil = '<img src=x onerror="document.title=1"><script>alert(1)</script>';
  await type(door, { document }, evil);
  const name = `<b onclick=1>${'x'.repeat(100)}`;
  const other = await DemoTab.open(await browser.person(), door, { document, name });
  await other.editor.press('Control+End');
  const tab = await DemoTab.open(browser.context, door, { document, name: 'Ada' });
  await other.type('!');
  await until('the text', async () => (await tab.text()) === `${evil}!`);
  await tab.showsPeople(['Ada', name.slice(0, 40)]);
  expect(await tab.tab.locator('.cm-content img[src], script:not([src])').count()).toBe(0);
  expect(noise(browser.console)).toEqual([]);
});

test('a picture of two people in one document', async ({ world }) => {
  const { door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  const window = { width: 720, height: 620 };
  const document = 'rich/launch-plan';
  const open = async (name: string, color: string): Promise<DemoTab> => {
    const context = await browser.person({ viewport: window, deviceScaleFactor: 2 });
    return DemoTab.open(context, door, { document, name, color, rich: true });
  };
  const ada = await open('Ada Lovelace', '#0f766e');
  const grace = await open('Grace Hopper', '#c2410c');
  await ada.type('# Launch plan\nEverything here is **on the disk** when it says so.\n');
  await ada.type('- write the announcement\nask two friends to read it\n');
  await grace.editor.getByText('ask two friends to read it').click();
  await grace.tab.keyboard.press('End');
  await grace.type(', and Barbara');
  await ada.type('publish on Monday');
  await ada.showsCarets(['Grace Hopper']);
  await grace.showsCarets(['Ada Lovelace']);
  for (const tab of [ada, grace]) {
    await tab.says('saved');
    await tab.editor.getByText('and Barbara').waitFor();
    await tab.editor.getByText('publish on Monday').waitFor();
  }
  const pictures = [await ada.tab.screenshot(), await grace.tab.screenshot()];
  const frame = await (
    await browser.person({
      viewport: { width: 2 * window.width + 108, height: window.height + 72 },
      deviceScaleFactor: 2,
    })
  ).newPage();
  const images = pictures.map(
    (png) => `<img src="data:image/png;base64,${png.toString('base64')}">`,
  );
  await frame.setContent(`<style>
    body { margin: 0; height: 100vh; display: flex; gap: 36px; align-items: center;
      justify-content: center; background: linear-gradient(135deg, #dcebe8, #f6e7dc) }
    img { width: ${window.width}px; border-radius: 12px; box-shadow: 0 16px 40px -12px #0006 }
  </style>${images.join('')}`);
  const file = process.env['COWRITE_SCREENSHOT'] ?? join(ROOT, 'tests/web/artifacts/demo.png');
  mkdirSync(dirname(file), { recursive: true });
  await frame.screenshot({ path: file });
});
