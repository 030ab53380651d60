// React: a provider for as long as a component is mounted.
import { useEffect, useRef, useState } from 'react';
import * as Y from 'yjs';
import type { CowriteError } from './errors.js';
import type { ClosedEvent, CowriteOptions } from './options.js';
import { CowriteProvider } from './provider.js';
import type { SaveState } from './save-state.js';
import type { DocumentAccess } from './session.js';
import type { Status } from './state.js';
import { tokenText } from './token.js';

/** What a component sees of a document. */
export interface Cowrite {
  readonly doc: Y.Doc;
  readonly provider: CowriteProvider;
  readonly status: Status;
  readonly synced: boolean;
  readonly state: SaveState;
  readonly access: DocumentAccess | undefined;
  /** Why the last session ended, until the next one is open. */
  readonly closed: ClosedEvent | undefined;
  readonly error: CowriteError | undefined;
}

/** As for a provider. The document, and with it the awareness, is made by the hook. */
export type UseCowriteOptions = Omit<CowriteOptions, 'awareness'> & {
  readonly awareness?: null | undefined;
};

/**
 * Opens a document while the component is mounted. `undefined` until it has mounted. Another `url`,
 * `document` or `access` is another provider; a `token` function is always the latest one; other
 * options are those of the first render.
 */
export function useCowrite(options: UseCowriteOptions): Cowrite | undefined {
  const [cowrite, setCowrite] = useState<Cowrite>();
  const [first] = useState(options);
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const { url, document, access } = options;
  useEffect(() => {
    const doc = new Y.Doc();
    const token = () => tokenText(latest.current.token);
    const provider = new CowriteProvider(doc, {
      ...first,
      url,
      document,
      access,
      token: first.token === undefined ? undefined : token,
    });
    let closed: ClosedEvent | undefined;
    let error: CowriteError | undefined;
    const show = () => {
      if (provider.status === 'connected') closed = undefined;
      const { status, synced, state, access } = provider;
      setCowrite({ doc, provider, status, synced, state, access, closed, error });
    };
    provider.on('status', show);
    provider.on('synced', show);
    provider.on('saved', show);
    provider.on('access', show);
    provider.on('closed', (event) => {
      closed = event;
      show();
    });
    provider.on('error', (event) => {
      error = event;
      show();
    });
    show();
    return () => {
      provider.destroy();
      doc.destroy();
      setCowrite(undefined);
    };
  }, [first, url, document, access]);
  return cowrite;
}
