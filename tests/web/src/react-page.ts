// What runs in the page of react.test.ts: a component that shows a document. Bundled by esbuild.

import { useCowrite } from 'cowrite-client/react';
import { createElement, StrictMode, useEffect, useState } from 'react';
import { createRoot, type Root } from 'react-dom/client';

let root: Root | undefined;
let renders = 0;

function Shown({ document }: { readonly document: string }) {
  renders += 1;
  const cowrite = useCowrite({ url: location.origin, document });
  const [text, setText] = useState('');
  const doc = cowrite?.doc;
  useEffect(() => {
    const content = doc?.getText('content');
    if (content === undefined) return;
    const show = (): void => setText(content.toString());
    content.observe(show);
    show();
    return () => content.unobserve(show);
  }, [doc]);
  const type = (): void => {
    const content = doc?.getText('content');
    content?.insert(content.length, 'x');
  };
  return createElement(
    'div',
    {},
    createElement('output', { id: 'status' }, cowrite?.status ?? 'none'),
    createElement('output', { id: 'synced' }, String(cowrite?.synced ?? false)),
    createElement('output', { id: 'state' }, cowrite?.state ?? 'none'),
    createElement('pre', { id: 'text' }, text),
    createElement('button', { id: 'type', onClick: type }, 'Type'),
  );
}

const app = {
  mount(document: string): void {
    const host = globalThis.document.querySelector('#app');
    if (host === null) throw new Error('there is nowhere to mount');
    root ??= createRoot(host);
    root.render(createElement(StrictMode, {}, createElement(Shown, { document })));
  },
  unmount(): void {
    root?.unmount();
    root = undefined;
  },
  renders: (): number => renders,
};

export type App = typeof app;

Object.assign(globalThis, { app });
