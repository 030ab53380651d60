// Silence does not end a connection: both providers give up on a server that says nothing for 30 s.

import { expect } from 'vitest';
import { KINDS } from '../src/participant.ts';
import { pause } from '../src/wait.ts';
import { converged, synced, test } from '../src/world.ts';

/** More than two of the providers' time limits. */
const SILENCE_MS = 80_000;

test(
  'nobody is disconnected by 80 s of silence',
  { timeout: SILENCE_MS + 40_000 },
  async ({ world }) => {
    const server = await world.server();
    const envoy = await world.envoy(server);
    const quiet = [server.door, envoy.door].flatMap((door, way) =>
      KINDS.flatMap((kind) =>
        [true, false].map((awareness) => {
          // One each in a document, so that nobody is kept awake by somebody else.
          const document = `quiet/${way}/${kind}/${awareness}`;
          return { door, one: world.open(door, { kind, document, awareness }) };
        }),
      ),
    );
    const all = quiet.map(({ one }) => one);
    await synced(...all);
    await pause(SILENCE_MS);
    for (const { one } of quiet) {
      const { document, watch } = one;
      expect({ document, opened: watch.opened, closes: watch.closes }).toEqual({
        document,
        opened: 1,
        closes: [],
      });
    }
    for (const { door, one } of quiet) {
      one.type('awake');
      const other = await world.join(door, { kind: 'y-websocket', document: one.document });
      await converged([one, other], 'awake');
    }
  },
);
