// Marks, for a moment, what others wrote while I was offline: merging becomes visible.
import { StateEffect, StateField } from '@codemirror/state';
import { Decoration, type DecorationSet, EditorView } from '@codemirror/view';
import { ySyncAnnotation } from 'y-codemirror.next';

/** As long as the animation in the style sheet. */
const SHOWN_MS = 3500;

const clear = StateEffect.define<null>();

export interface Arrivals {
  readonly extension: ReturnType<typeof StateField.define<DecorationSet>>;
  readonly setMarking: (view: EditorView, marking: boolean) => void;
}

export function arrivals(): Arrivals {
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
      if (!value) timer = setTimeout(() => view.dispatch({ effects: clear.of(null) }), SHOWN_MS);
    },
  };
}
