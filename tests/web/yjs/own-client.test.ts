// Our own browser client in the same documents as the providers of others.

import { CowriteProvider } from 'cowrite-client';
import { describe, expect } from 'vitest';
import * as Y from 'yjs';
import { cat } from '../src/native.ts';
import { KINDS } from '../src/participant.ts';
import type { Door } from '../src/server.ts';
import { until } from '../src/wait.ts';
import { converged, sees, test, type World } from '../src/world.ts';

/** Our client, with the questions that are asked of all participants. */
interface Own {
  readonly provider: CowriteProvider;
  readonly text: () => string;
  readonly type: (text: string) => void;
  readonly users: () => string[];
  readonly leave: () => Promise<void>;
}

async function own(world: World, door: Door, document: string, user: string): Promise<Own> {
  const doc = new Y.Doc();
  const provider = new CowriteProvider(doc, { url: door.http, document, persistence: false });
  world.defer(() => provider.destroy());
  provider.awareness?.setLocalState({ user: { name: user } });
  const root = doc.getText('content');
  await until('our client to be synced', () => provider.synced);
  return {
    provider,
    text: () => root.toString(),
    type: (text) => root.insert(root.length, text),
    users: () =>
      [...(provider.awareness?.getStates().values() ?? [])]
        .map((state) => state['user'].name as string)
        .sort(),
    leave: async () => provider.destroy(),
  };
}

const ways: Readonly<Record<string, (world: World) => Promise<Door>>> = {
  directly: async (world) => (await world.server()).door,
  'through Envoy': async (world) => (await world.envoy(await world.server())).door,
};

describe.each(Object.entries(ways))('%s', (_, open) => {
  test('our client and all providers converge and see each other', async ({ world }) => {
    const door = await open(world);
    const document = 'mixed';
    const ours = await own(world, door, document, 'ours');
    const all = await Promise.all(
      KINDS.map((kind) => world.join(door, { kind, document, user: kind })),
    );
    await sees([ours, ...all], ['ours', ...KINDS]);
    let text = '';
    for (const one of [ours, ...all]) {
      text += '<word>';
      one.type('<word>');
      await converged([ours, ...all], text);
    }
    await until('our client to be saved', () => ours.provider.state === 'saved');
    expect(await cat(door, { document })).toBe(text);
    await ours.leave();
    await sees(all, KINDS);
  });
});
