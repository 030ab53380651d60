// Marks, for a moment, what others wrote while I was offline: merging becomes visible.
import { StateEffect, StateField } from '@codemirror/state';
import { Decoration, type DecorationSet, EditorView } from '@codemirror/view';
import { ySyncAnnotation } from 'y-codemirror.next';

import { ARRIVAL_MS } from './editor.ts';

const clear = StateEffect.define<null>();

export interface TextArrivals {
  readonly extension: ReturnType<typeof StateField.define<DecorationSet>>;
  readonly setMarking: (view: EditorView, marking: boolean) => void;
}

export function textArrivals(): TextArrivals {
  let marking = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const extension = StateField.define<DecorationSet>({
    create: () => Decoration.none,
    update: (marks, transaction) => {
      if (transaction.effects.some((effect) => effect.is(clear))) return Decoration.none;
      let next = marks.map(transaction.changes);
      if (marking && transaction.docChanged && transaction.annotation(ySyncAnnotation)) {
        transaction.changes.iterChangedRanges((_fromA, _toA, from, to) => {
          if (to > from)
            next = next.update({ add: [Decoration.mark({ class: 'arrived' }).range(from, to)] });
        });
      }
      return next;
    },
    provide: (field) => EditorView.decorations.from(field),
  });
  return {
    extension,
    setMarking: (view, value) => {
      marking = value;
      clearTimeout(timer);
      if (value) return;
      timer = setTimeout(() => {
        if (view.dom.isConnected) view.dispatch({ effects: clear.of(null) });
      }, ARRIVAL_MS);
    },
  };
}
