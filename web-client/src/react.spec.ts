// @vitest-environment happy-dom
// The hook in React's strict mode, which mounts, unmounts and mounts again.
import { StrictMode, act, createElement } from 'react';
import { createRoot } from 'react-dom/client';
import { expect, it, vi } from 'vitest';
import { FakeTransport, docWith } from '../test/fake-transport.js';
import { type Cowrite, useCowrite } from './react.js';

it('pitfall 15: strict mode leaves one session, and unmounting none', async () => {
  vi.stubGlobal('IS_REACT_ACT_ENVIRONMENT', true);
  const transport = new FakeTransport();
  let seen: Cowrite | undefined;
  const Editor = () => {
    const token = () => 'secret';
    seen = useCowrite({ url: 'http://test', document: 'd', transport, token, persistence: false });
    return createElement('p', null, seen?.status);
  };
  const container = document.createElement('div');
  const root = createRoot(container);
  await act(async () => root.render(createElement(StrictMode, null, createElement(Editor))));
  expect(container.textContent).toBe('connecting');
  expect(transport.sessions.filter((session) => !session.aborted)).toHaveLength(1);
  expect(transport.session.join.token).toBe('secret');
  const server = docWith('hello');
  await act(async () => {
    transport.session.joined(server, { syncSequence: 1n });
    transport.session.sync(server);
    await seen?.provider.whenSynced();
  });
  expect(container.textContent).toBe('connected');
  expect([seen?.synced, seen?.state, seen?.access]).toEqual([true, 'saved', 'write']);
  expect(seen?.doc.getText('content').toString()).toBe('hello');
  await act(async () => root.unmount());
  expect(transport.session.frames.at(-1)?.case).toBe('leave');
  await vi.waitFor(() => expect(transport.sessions.every(({ aborted }) => aborted)).toBe(true));
});
