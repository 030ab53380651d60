// HTTP/1.1: a browser opens six connections to a host, and every open document takes one.

import { expect } from 'vitest';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import { until } from '../src/wait.ts';
import { test } from '../src/world.ts';

const CONNECTIONS = 6;
/** More than the first-message deadline of the client, 10 s. */
const DEADLINE_MS = 14_000;

test('over HTTP/1.1 the seventh tab is told why it has to wait, and comes in when there is room', async ({
  world,
}) => {
  // The six send nothing, not even the answer to a heartbeat: it could not go out.
  const { door } = await path('directly over HTTP/1.1')(world, {
    'session.heartbeat_interval': '60s',
    'session.heartbeat_timeout': '180s',
  });
  const { context } = await world.browser();
  const quiet = { persistence: false, awareness: false } as const;
  const tabs: OwnTab[] = [];
  for (let tab = 0; tab < CONNECTIONS; tab += 1) {
    tabs.push(await OwnTab.open(context, door, { ...quiet, document: `six/${tab}` }));
  }
  const seventh = await OwnTab.empty(context, door);
  await seventh.page.open({ ...quiet, document: 'six/seventh' });
  await until(
    async () =>
      `the seventh tab to be told; it was told ${JSON.stringify(await seventh.page.told())}`,
    async () => (await seventh.page.told()).some(({ event }) => event === 'closed'),
    DEADLINE_MS,
  );
  const closed = (await seventh.page.told()).find(({ event }) => event === 'closed');
  expect(closed?.value).toMatchObject({
    permanent: false,
    message: expect.stringContaining('six connections to one host'),
  });
  expect(await seventh.page.synced()).toBe(false);

  await tabs[0]?.tab.close();
  await seventh.synced();
});

test('over HTTP/2 seven tabs and more are no trouble', async ({ world }) => {
  const { door } = await path('directly over HTTP/2 with TLS')(world);
  const { context } = await world.browser();
  const tabs: OwnTab[] = [];
  for (let tab = 0; tab <= CONNECTIONS + 1; tab += 1) {
    tabs.push(await OwnTab.open(context, door, { document: 'many', persistence: false }));
  }
  for (const [index, tab] of tabs.entries()) await tab.page.type(`${index};`);
  for (const tab of tabs) {
    await until(
      'all tabs to have all',
      async () => (await tab.page.text()).length === 2 * tabs.length,
    );
    await tab.saved();
  }
});
