// The React hook, in strict mode, which mounts everything twice.

import { expect } from 'vitest';
import { cat, type } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import type { App } from '../src/react-page.ts';
import { stays, until } from '../src/wait.ts';
import { test } from '../src/world.ts';

declare const app: App;

test('a component in strict mode has one session, and none when it is gone', async ({ world }) => {
  const { server, door } = await path('directly over HTTP/1.1')(world);
  const browser = await world.browser();
  const { tab } = await OwnTab.empty(browser.context, door, 'react-page.ts');
  const sessions = (): Promise<number> => server.metric('cowrite_sessions');
  const shown = (id: string): Promise<string> => tab.locator(`#${id}`).innerText();

  await tab.evaluate(() => app.mount('react/one'));
  await until('the component to be in sync', async () => (await shown('synced')) === 'true');
  expect(await shown('status')).toBe('connected');
  await stays('one session', async () => (await sessions()) === 1, 1_000);

  await tab.locator('#type').click();
  await until('the component to be saved', async () => (await shown('state')) === 'saved');
  expect(await shown('text')).toBe('x');
  await until('it on the server', async () => (await cat(door, { document: 'react/one' })) === 'x');
  await type(server.door, { document: 'react/one' }, 'yz');
  await until('edits of others', async () => (await shown('text')) === 'xyz');

  // Another document: the first session is left, in the same component.
  await until('the command to be gone', async () => (await sessions()) === 1);
  await tab.evaluate(() => app.mount('react/two'));
  await until('the other document', async () => (await shown('text')) === '');
  await until('it to be in sync', async () => (await shown('synced')) === 'true');
  await until('one session', async () => (await sessions()) === 1);

  await tab.evaluate(() => app.unmount());
  await until('no session', async () => (await sessions()) === 0);
  await stays('no session', async () => (await sessions()) === 0, 1_000);
  expect(await tab.evaluate(() => app.renders())).toBeLessThan(100);
  expect(browser.console.filter((line) => /^(error|warning)/.test(line))).toEqual([]);
});
