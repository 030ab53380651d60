// The providers in Chromium, where they are at home.

import { describe, expect } from 'vitest';
import { type } from '../src/native.ts';
import { KINDS } from '../src/participant.ts';
import type { Door, Settings } from '../src/server.ts';
import { until } from '../src/wait.ts';
import { converged, sees, synced, test, type World } from '../src/world.ts';

/** More than the backoff of any provider after the first failures. */
const RECONNECT_MS = 25_000;

/** Far below the 30 s after which a client forgets a silent cursor. */
const AT_ONCE_MS = 3_000;

/** Pages come from another origin than the server: that it takes them has to be said. */
const settings: Settings = { 'transport.allowed_origins': '["*"]' };

/** Where pages come in. */
const ways: Readonly<
  Record<string, (world: World) => Promise<readonly [page: Door, native: Door]>>
> = {
  directly: async (world) => {
    const { door } = await world.server(settings);
    return [door, door];
  },
  'through Envoy': async (world) => {
    const server = await world.server(settings);
    return [(await world.envoy(server)).door, server.door];
  },
  'through Envoy with TLS': async (world) => {
    const server = await world.server(settings);
    return [(await world.envoy(server)).tlsDoor, server.door];
  },
};

describe.each(Object.entries(ways))('%s', (_, open) => {
  test('all providers in tabs converge with Node and a native client', async ({ world }) => {
    const [door, native] = await open(world);
    const browser = await world.browser();
    const document = 'tabs/all';
    const tabs = await Promise.all(
      KINDS.map(async (kind) => {
        const tab = await browser.tab();
        return tab.open({ kind, document, ws: door.ws, user: kind });
      }),
    );
    await synced(...tabs);
    const node = await world.join(native, { kind: 'hocuspocus', document, user: 'node' });
    const all = [...tabs, node];
    await sees(all, [...KINDS, 'node']);
    let text = '';
    for (const [index, tab] of tabs.entries()) {
      text += `tab ${index}, `;
      await tab.type(`tab ${index}, `);
      await converged(all, text);
    }
    await type(native, { document }, 'native');
    await converged(all, `${text}native`);
  });
});

test('the cursors of a closed and of a crashed tab vanish at once', async ({ world }) => {
  const { door } = await world.server(settings);
  const browser = await world.browser();
  for (const kind of KINDS) {
    const document = `gone/${kind}`;
    const watcher = await world.join(door, { kind: 'y-websocket', document, user: 'watcher' });
    const [closing, crashing] = [await browser.tab(), await browser.tab()];
    await closing.open({ kind, document, ws: door.ws, user: 'closing' });
    await crashing.open({ kind, document, ws: door.ws, user: 'crashing' });
    await sees([watcher], ['closing', 'crashing', 'watcher']);
    await closing.close();
    await sees([watcher], ['crashing', 'watcher'], AT_ONCE_MS);
    await crashing.crash();
    await sees([watcher], ['watcher'], AT_ONCE_MS);
  }
});

test('all providers reconnect after a kill -9, with what was typed meanwhile', async ({
  world,
}) => {
  const server = await world.server(settings);
  const browser = await world.browser();
  const tab = await browser.tab();
  const all = await Promise.all(
    KINDS.map((kind) => tab.open({ kind, document: `back/${kind}`, ws: server.ws })),
  );
  await synced(...all);
  await server.kill9();
  for (const one of all) {
    await until('the page to notice', async () => !(await one.connected()));
    await one.type('typed offline');
  }
  await server.restart();
  for (const [index, one] of all.entries()) {
    await until('the page to be back', () => one.synced(), RECONNECT_MS);
    const other = await world.join(server.door, {
      kind: 'y-websocket',
      document: `back/${KINDS[index]}`,
    });
    await converged([one, other], 'typed offline');
    expect((await one.sockets()).opened).toBeGreaterThan(1);
  }
});
