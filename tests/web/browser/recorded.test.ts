// A session that two people once had, typed again by two tabs.

import { expect } from 'vitest';
import { cat } from '../src/native.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path } from '../src/paths.ts';
import { CLIENTS, recording } from '../src/recording.ts';
import { until, within } from '../src/wait.ts';
import { test } from '../src/world.ts';

/** Each takes turns with the other some thousand times, and each turn goes through the server. */
const SESSION_MS = 150_000;

test('a recorded session of two people ends in both tabs as it was recorded', async ({ world }) => {
  const { server, door } = await path('directly over HTTP/1.1')(world);
  const { context } = await world.browser();
  const document = 'recorded';
  const { name, edits, end } = recording();
  console.log(`the session: ${name}, ${edits[0].length} and ${edits[1].length} edits`);
  const options = { document, persistence: false } as const;
  const one = await OwnTab.open(context, door, { ...options, clientId: CLIENTS[0] });
  const other = await OwnTab.open(context, door, { ...options, clientId: CLIENTS[1] });
  await within(
    'the session to be typed',
    Promise.all([one.page.replay(edits[0]), other.page.replay(edits[1])]),
    SESSION_MS,
  );
  await one.saved();
  await other.saved();
  for (const tab of [one, other]) {
    await until('the recorded text', async () => (await tab.page.text()) === end);
  }
  expect(await cat(server.door, { document })).toBe(end.replace(/\n$/, ''));
}, 200_000);
