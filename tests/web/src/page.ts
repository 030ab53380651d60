// What runs in a page: participants by number, for browser.ts. Bundled by esbuild.

import { type Method, type Options, Participant } from './participant.ts';

const participants: Participant[] = [];

const page = {
  open(options: Options): number {
    return participants.push(new Participant(options, WebSocket)) - 1;
  },
  call(index: number, method: Method, args: readonly unknown[]): unknown {
    const participant = participants[index];
    const called = participant?.[method] as (...args: readonly unknown[]) => unknown;
    return called.apply(participant, [...args]) ?? null;
  },
};

export type Page = typeof page;

Object.assign(globalThis, { page });
