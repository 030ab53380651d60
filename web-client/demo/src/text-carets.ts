// Selections of others in CodeMirror. The same awareness fields as y-codemirror.next, so that both
// see each other; but names are shown while somebody types, not only under the mouse.
import { Annotation, type Range } from '@codemirror/state';
import {
  Decoration,
  type DecorationSet,
  type EditorView,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from '@codemirror/view';
import * as Y from 'yjs';

import { caretElement } from './caret.ts';
import type { CheckedAwareness, CheckedState } from './checked-awareness.ts';

const awarenessChanged = Annotation.define<true>();

class CaretWidget extends WidgetType {
  readonly user: CheckedState['user'];

  constructor(user: CheckedState['user']) {
    super();
    this.user = user;
  }

  override eq(other: CaretWidget): boolean {
    const { clientId, name, color } = this.user;
    return (
      other.user.clientId === clientId && other.user.name === name && other.user.color === color
    );
  }

  override toDOM(): HTMLElement {
    return caretElement(this.user);
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** Shows the selections of others in `text`, and tells them mine. */
export function textCarets(text: Y.Text, awareness: CheckedAwareness) {
  class Carets {
    decorations: DecorationSet = Decoration.none;
    readonly #view: EditorView;
    readonly #listener: (change: { added: number[]; updated: number[]; removed: number[] }) => void;

    constructor(view: EditorView) {
      this.#view = view;
      this.#listener = ({ added, updated, removed }) => {
        if ([...added, ...updated, ...removed].some((id) => id !== awareness.clientID)) {
          view.dispatch({ annotations: awarenessChanged.of(true) });
        }
      };
      awareness.on('change', this.#listener);
      this.decorations = this.#build();
    }

    update(update: ViewUpdate): void {
      if (update.docChanged || update.selectionSet || update.focusChanged) this.#tell();
      const told = update.transactions.some((transaction) =>
        transaction.annotation(awarenessChanged),
      );
      if (update.docChanged || told) this.decorations = this.#build();
    }

    destroy(): void {
      awareness.off('change', this.#listener);
      awareness.setLocalStateField('cursor', null);
    }

    #tell(): void {
      if (!this.#view.hasFocus) return;
      const before = awareness.getLocalState()?.cursor as
        { anchor: unknown; head: unknown } | null | undefined;
      const { anchor, head } = this.#view.state.selection.main;
      const cursor = {
        anchor: Y.createRelativePositionFromTypeIndex(text, anchor),
        head: Y.createRelativePositionFromTypeIndex(text, head),
      };
      const same =
        before &&
        Y.compareRelativePositions(
          Y.createRelativePositionFromJSON(before.anchor),
          cursor.anchor,
        ) &&
        Y.compareRelativePositions(Y.createRelativePositionFromJSON(before.head), cursor.head);
      if (!same) awareness.setLocalStateField('cursor', cursor);
    }

    #build(): DecorationSet {
      const ranges: Range<Decoration>[] = [];
      const length = this.#view.state.doc.length;
      const index = (position: Y.RelativePosition) => {
        const absolute =
          text.doc && Y.createAbsolutePositionFromRelativePosition(position, text.doc);
        return absolute?.type === text && absolute.index <= length ? absolute.index : null;
      };
      for (const [id, { user, cursor }] of awareness.getStates()) {
        if (id === awareness.clientID || !cursor) continue;
        const anchor = index(cursor.anchor);
        const head = index(cursor.head);
        if (anchor === null || head === null) continue;
        if (anchor !== head) {
          const mark = Decoration.mark({
            class: 'selection-of',
            attributes: { style: `--person: ${user.color}` },
          });
          ranges.push(mark.range(Math.min(anchor, head), Math.max(anchor, head)));
        }
        ranges.push(
          Decoration.widget({ widget: new CaretWidget(user), side: head >= anchor ? -1 : 1 }).range(
            head,
          ),
        );
      }
      return Decoration.set(ranges, true);
    }
  }

  return ViewPlugin.fromClass(Carets, { decorations: (carets) => carets.decorations });
}
