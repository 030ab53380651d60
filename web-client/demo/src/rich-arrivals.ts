// Marks, for a moment, what others wrote while I was offline: the same as text-arrivals.ts, in Tiptap.
import { Extension } from '@tiptap/core';
import { isChangeOrigin } from '@tiptap/extension-collaboration';
import { ChangeSet } from '@tiptap/pm/changeset';
import { Plugin, PluginKey } from '@tiptap/pm/state';
import { Decoration, DecorationSet, type EditorView } from '@tiptap/pm/view';

import { ARRIVAL_MS } from './editor.ts';

export interface RichArrivals {
  readonly extension: Extension;
  readonly setMarking: (view: EditorView, marking: boolean) => void;
}

interface Marks {
  /** What changed since the first arrival, by whether it arrived. */
  readonly changes: ChangeSet<boolean> | null;
  readonly decorations: DecorationSet;
}

const NONE: Marks = { changes: null, decorations: DecorationSet.empty };

export function richArrivals(): RichArrivals {
  const key = new PluginKey<Marks>('arrivals');
  let marking = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const plugin = new Plugin<Marks>({
    key,
    state: {
      init: () => NONE,
      apply: (transaction, marks) => {
        if (transaction.getMeta(key) === 'clear') return NONE;
        if (!transaction.docChanged) return marks;
        const arrives = isChangeOrigin(transaction);
        if (!marks.changes && !(marking && arrives)) return NONE;
        // The binding replaces more than what changed, which no mapping of positions survives. A
        // change set compares, and finds what is new.
        const changes = (marks.changes ?? ChangeSet.create<boolean>(transaction.before)).addSteps(
          transaction.doc,
          transaction.mapping.maps,
          arrives,
        );
        return { changes, decorations: DecorationSet.create(transaction.doc, arrived(changes)) };
      },
    },
    props: { decorations: (state) => key.getState(state)?.decorations },
  });
  return {
    extension: Extension.create({ name: 'arrivals', addProseMirrorPlugins: () => [plugin] }),
    setMarking: (view, value) => {
      marking = value;
      clearTimeout(timer);
      if (value) return;
      timer = setTimeout(() => {
        if (!view.isDestroyed) view.dispatch(view.state.tr.setMeta(key, 'clear'));
      }, ARRIVAL_MS);
    },
  };
}

function arrived(changes: ChangeSet<boolean>): Decoration[] {
  const decorations: Decoration[] = [];
  for (const { fromB, inserted } of changes.changes) {
    let from = fromB;
    for (const { length, data } of inserted) {
      if (data) decorations.push(Decoration.inline(from, from + length, { class: 'arrived' }));
      from += length;
    }
  }
  return decorations;
}
