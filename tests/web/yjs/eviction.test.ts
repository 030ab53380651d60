// A client that stops answering is evicted, and is let in again when it is back.

import { describe, expect } from 'vitest';
import { KINDS } from '../src/participant.ts';
import { pause, until } from '../src/wait.ts';
import { converged, sees, synced, test } from '../src/world.ts';

/** A heartbeat that is short enough to wait for. */
const SETTINGS = { 'session.heartbeat_interval': '1s', 'session.heartbeat_timeout': '4s' } as const;
const TIMEOUT_MS = 4_000;

describe.concurrent.each(KINDS)('%s', (kind) => {
  test('a client that stops answering disappears, and comes back with its edits', async ({
    world,
  }) => {
    const server = await world.server(SETTINGS);
    const document = 'frozen';
    const far = await world.far(server.door, { kind, document, user: 'far' });
    await synced(far.participant);
    const watcher = await world.join(server.door, {
      kind: 'y-websocket',
      document,
      user: 'watcher',
    });
    await far.participant.type('one ');
    await converged([watcher, far.participant], 'one ');
    await sees([watcher, far.participant], ['far', 'watcher']);
    far.freeze();
    await sees([watcher], ['watcher'], 3 * TIMEOUT_MS);
    watcher.type('two ');
    far.thaw();
    await until(
      async () => `a new connection; ${JSON.stringify(await far.participant.sockets())}`,
      async () => (await far.participant.sockets()).opened > 1 && (await far.participant.synced()),
    );
    await converged([watcher, far.participant], 'one two ');
    await far.participant.type('three');
    await converged([watcher, far.participant], 'one two three');
    await sees([watcher, far.participant], ['far', 'watcher']);
    const { closes } = await far.participant.sockets();
    if (kind === 'y-websocket') {
      // 4400 to 4499 would have stopped it for good.
      for (const { code } of closes) expect(code < 4400 || code > 4499, `code ${code}`).toBe(true);
    }
  });

  test('a client that has nothing to say is not evicted', async ({ world }) => {
    const server = await world.server(SETTINGS);
    const silent = await world.join(server.door, { kind, document: 'silent', awareness: false });
    await pause(3 * TIMEOUT_MS);
    expect(silent.watch).toMatchObject({ opened: 1, closes: [] });
    silent.type('here');
    const other = await world.join(server.door, { kind, document: 'silent' });
    await converged([silent, other], 'here');
  });
});
