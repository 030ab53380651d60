// CodeMirror on a Y.Text, as y-codemirror.next binds it, and somebody who writes in it at random.
import './dom.js';
import { EditorState } from '@codemirror/state';
import { EditorView } from '@codemirror/view';
import { yCollab } from 'y-codemirror.next';
import * as Y from 'yjs';
import { type Random, TEXTS } from './random.js';

/** An editor and its user. */
export interface Editor {
  /** One thing that a user does, at a random place. */
  edit(random: Random): void;
  undo(): void;
  redo(): void;
  /** What follows is undone by itself. */
  pause(): void;
  destroy(): void;
}

export function codeEditor(type: Y.Text): Editor {
  // Time would otherwise say what is undone together.
  const undoManager = new Y.UndoManager(type, { captureTimeout: Number.MAX_SAFE_INTEGER });
  const view = new EditorView({
    state: EditorState.create({
      doc: type.toString(),
      extensions: [
        EditorState.allowMultipleSelections.of(true),
        yCollab(type, null, { undoManager }),
      ],
    }),
    parent: document.body,
  });
  return {
    edit: (random) => edit(view, random),
    undo: () => void undoManager.undo(),
    redo: () => void undoManager.redo(),
    pause: () => undoManager.stopCapturing(),
    destroy: () => {
      view.destroy();
      undoManager.destroy();
    },
  };
}

function edit(view: EditorView, random: Random): void {
  const { doc } = view.state;
  const at = cursor(view, random.below(doc.length + 1));
  switch (
    random.weighed({
      type: 12,
      erase: 5,
      replace: 2,
      cursors: 3,
      paste: 2,
      cut: 1,
      move: 1,
      indent: 1,
    })
  ) {
    case 'type':
      view.dispatch(view.state.replaceSelection(''), { selection: { anchor: at } });
      // As fingers do: a transaction for each.
      for (const character of random.pick(TEXTS)) {
        view.dispatch(view.state.replaceSelection(character));
      }
      break;
    case 'erase':
      view.dispatch({ changes: { from: at, to: cursor(view, at + 1 + random.below(30)) } });
      break;
    case 'replace': {
      const to = cursor(view, at + random.below(20));
      view.dispatch({ changes: { from: at, to, insert: random.pick(TEXTS) } });
      break;
    }
    case 'cursors': {
      const lines = Array.from({ length: Math.min(doc.lines, 6) }, (_, index) => index + 1);
      const insert = random.pick(['// ', '- ', '\u{1F4CC}']);
      view.dispatch({ changes: lines.map((line) => ({ from: doc.line(line).from, insert })) });
      break;
    }
    case 'paste': {
      const line = `${random.pick(TEXTS)}${random.pick(TEXTS)}\n`;
      view.dispatch({ changes: { from: at, insert: line.repeat(1 + random.below(20)) } });
      break;
    }
    case 'cut': {
      const from = cursor(view, random.below(1 + (doc.length >> 1)));
      view.dispatch({ changes: { from, to: cursor(view, from + (doc.length >> 1)) } });
      break;
    }
    case 'move': {
      const line = doc.line(1 + random.below(doc.lines));
      const to = Math.min(line.to + 1, doc.length);
      const insert = doc.sliceString(line.from, to);
      const target = doc.line(1 + random.below(doc.lines)).from;
      const inside = target > line.from && target < to;
      view.dispatch({
        changes: [{ from: line.from, to }, ...(inside ? [] : [{ from: target, insert }])],
      });
      break;
    }
    case 'indent': {
      const changes = [];
      for (let line = 1; line <= doc.lines; line++) {
        const { from, text } = doc.line(line);
        changes.push(text.startsWith('  ') ? { from, to: from + 2 } : { from, insert: '  ' });
      }
      view.dispatch({ changes });
      break;
    }
  }
}

/** Where a cursor can be: not between the halves of a surrogate pair. */
function cursor(view: EditorView, position: number): number {
  const { doc } = view.state;
  const at = Math.min(position, doc.length);
  const unit = at > 0 ? doc.sliceString(at - 1, at).charCodeAt(0) : 0;
  return unit >= 0xd800 && unit < 0xdc00 ? at + 1 : at;
}
