// What runs in a child process: participants that are driven by messages of the parent. Bundled and
// started by world.ts.

import { WebSocket } from 'ws';
import { type Method, type Options, Participant, type SocketClass } from './participant.ts';

/** A call by the parent. */
export type Call =
  | { readonly id: number; readonly open: Options }
  | { readonly id: number; readonly method: Method; readonly args: readonly unknown[] };

/** Its answer. */
export type Answer = { readonly id: number; readonly value: unknown };

let participant: Participant | undefined;

process.on('message', (call: Call) => {
  const answer = (value: unknown): void => {
    process.send?.({ id: call.id, value } satisfies Answer);
  };
  if ('open' in call) {
    participant = new Participant(call.open, WebSocket as unknown as SocketClass);
    answer(null);
  } else {
    const method = participant?.[call.method] as (...args: readonly unknown[]) => unknown;
    answer(method.apply(participant, [...call.args]) ?? null);
  }
});

// The parent is gone: so are we.
process.on('disconnect', () => process.exit());
