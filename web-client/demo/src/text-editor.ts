// The text page: CodeMirror on the root text `content`, which `cowrite cat` and `cowrite type` use too.
import { defaultKeymap } from '@codemirror/commands';
import {
  HighlightStyle,
  Language,
  defineLanguageFacet,
  syntaxHighlighting,
} from '@codemirror/language';
import { search, searchKeymap } from '@codemirror/search';
import { Compartment, EditorSelection, EditorState, type TransactionSpec } from '@codemirror/state';
import { EditorView, keymap, placeholder } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { GFM, parser } from '@lezer/markdown';
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next';
import * as Y from 'yjs';

import { followCarets } from './caret.ts';
import { CheckedAwareness } from './checked-awareness.ts';
import { countWords, type Editor, type EditorOptions } from './editor.ts';
import { textArrivals } from './text-arrivals.ts';
import { textCarets } from './text-carets.ts';
import { toolbar } from './toolbar.ts';

const ROOT = 'content';

/** Still focusable, so that it can be read and copied with the keyboard. */
const READ_ONLY = [
  EditorState.readOnly.of(true),
  EditorView.editable.of(false),
  EditorView.contentAttributes.of({ tabindex: '0' }),
];

/** The parser alone: the package for Markdown would bring those for HTML, CSS and JavaScript. */
const markdown = new Language(defineLanguageFacet(), parser.configure(GFM), [], 'markdown');

const look = HighlightStyle.define([
  { tag: tags.heading1, class: 'md-heading md-h1' },
  { tag: tags.heading2, class: 'md-heading md-h2' },
  { tag: tags.heading3, class: 'md-heading md-h3' },
  { tag: [tags.heading4, tags.heading5, tags.heading6], class: 'md-heading' },
  { tag: tags.strong, class: 'md-strong' },
  { tag: tags.emphasis, class: 'md-emphasis' },
  { tag: tags.strikethrough, class: 'md-strike' },
  { tag: tags.monospace, class: 'md-code' },
  { tag: tags.quote, class: 'md-quote' },
  { tag: tags.link, class: 'md-link' },
  { tag: tags.url, class: 'md-url' },
  { tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName], class: 'md-mark' },
]);

/** Puts `mark` around each selection, or takes it away. */
function wrap(view: EditorView, mark: string): void {
  const { state } = view;
  const size = mark.length;
  const change = state.changeByRange((range) => {
    const { from, to } = range;
    if (state.sliceDoc(from - size, from) === mark && state.sliceDoc(to, to + size) === mark) {
      return {
        changes: [
          { from: from - size, to: from },
          { from: to, to: to + size },
        ],
        range: EditorSelection.range(from - size, to - size),
      };
    }
    return {
      changes: [
        { from, insert: mark },
        { from: to, insert: mark },
      ],
      range: EditorSelection.range(from + size, to + size),
    };
  });
  edit(view, change);
}

/** Begins each selected line with `prefix`, or takes it away when all have it. */
function prefixLines(view: EditorView, prefix: (index: number) => string, pattern: RegExp): void {
  const { state } = view;
  const { from, to } = state.selection.main;
  const lines = [];
  for (let at = state.doc.lineAt(from); ; at = state.doc.line(at.number + 1)) {
    lines.push(at);
    if (at.to >= to) break;
  }
  const all = lines.every((line) => pattern.test(line.text));
  const changes = lines.map((line, index) => {
    const has = pattern.exec(line.text)?.[0].length ?? 0;
    return { from: line.from, to: line.from + has, insert: all ? '' : prefix(index) };
  });
  edit(view, { changes });
}

function edit(view: EditorView, spec: TransactionSpec): void {
  view.dispatch(view.state.update(spec, { userEvent: 'input', scrollIntoView: true }));
  view.focus();
}

/** Enter goes on with a list or a quote, and ends it on an item without text. */
function continueList(view: EditorView): boolean {
  const { state } = view;
  const { main } = state.selection;
  if (!main.empty || state.selection.ranges.length > 1 || state.readOnly) return false;
  const line = state.doc.lineAt(main.head);
  const match = /^(\s*)(?:([-*+]) (\[[ x]\] )?|(\d{1,9})([.)]) |(> ?))/.exec(line.text);
  if (!match || main.head < line.from + match[0].length) return false;
  const [marker, indent, bullet, task, number, dot, quote] = match;
  if (line.text.length === marker.length) {
    view.dispatch({ changes: { from: line.from, to: line.to }, userEvent: 'delete' });
    return true;
  }
  const next = bullet
    ? `${bullet} ${task ? '[ ] ' : ''}`
    : quote
      ? '> '
      : `${Number(number) + 1}${dot} `;
  const insert = `\n${indent}${next}`;
  view.dispatch({
    changes: { from: main.head, insert },
    selection: { anchor: main.head + insert.length },
    userEvent: 'input',
    scrollIntoView: true,
  });
  return true;
}

export function mountEditor({
  doc,
  awareness,
  host,
  toolbarHost,
  placeholder: hint,
}: EditorOptions): Editor {
  const text = doc.getText(ROOT);
  const checked = new CheckedAwareness(awareness);
  const undoManager = new Y.UndoManager(text);
  const editable = new Compartment();
  const arrived = textArrivals();
  let contentListener = () => {};

  const bold = (view: EditorView) => (wrap(view, '**'), true);
  const italic = (view: EditorView) => (wrap(view, '_'), true);

  const view = new EditorView({
    parent: host,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({
          'aria-label': 'Document text',
          'data-testid': 'editor',
          spellcheck: 'true',
          autocorrect: 'on',
          autocapitalize: 'sentences',
        }),
        editable.of([]),
        placeholder(hint),
        markdown,
        syntaxHighlighting(look),
        search({ top: true }),
        keymap.of([
          { key: 'Enter', run: continueList },
          { key: 'Mod-b', run: bold },
          { key: 'Mod-i', run: italic },
          ...yUndoManagerKeymap,
          ...searchKeymap,
          ...defaultKeymap,
        ]),
        arrived.extension,
        yCollab(text, null, { undoManager }),
        textCarets(text, checked),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) contentListener();
          if (update.docChanged || update.selectionSet) tools.refresh();
        }),
      ],
    }),
  });

  const tools = toolbar(
    'Formatting',
    [
      [
        {
          name: 'Undo',
          face: 'undo',
          keys: 'Mod-Z',
          run: () => undoManager.undo(),
          enabled: () => undoManager.canUndo(),
        },
        {
          name: 'Redo',
          face: 'redo',
          keys: 'Mod-Shift-Z',
          run: () => undoManager.redo(),
          enabled: () => undoManager.canRedo(),
        },
      ],
      [
        {
          name: 'Heading',
          face: { letters: 'H' },
          run: () => prefixLines(view, () => '# ', /^#{1,6} /),
        },
        { name: 'Bold', face: 'bold', keys: 'Mod-B', run: () => wrap(view, '**') },
        { name: 'Italic', face: 'italic', keys: 'Mod-I', run: () => wrap(view, '_') },
        { name: 'Code', face: 'code', run: () => wrap(view, '`') },
      ],
      [
        {
          name: 'Bullet list',
          face: 'bullet-list',
          run: () => prefixLines(view, () => '- ', /^[-*+] /),
        },
        {
          name: 'Numbered list',
          face: 'ordered-list',
          run: () => prefixLines(view, (index) => `${index + 1}. `, /^\d{1,9}[.)] /),
        },
        { name: 'Quote', face: 'quote', run: () => prefixLines(view, () => '> ', /^> ?/) },
      ],
    ],
    () => !view.state.readOnly,
  );
  toolbarHost.append(tools.element);
  const refreshTools = () => tools.refresh();
  undoManager.on('stack-item-added', refreshTools);
  undoManager.on('stack-item-popped', refreshTools);
  const unfollow = followCarets(host, checked);

  return {
    setEditable: (value) => {
      if (value !== view.state.readOnly) return;
      // Chromium takes the focus from what is no longer editable.
      const focused = view.root.activeElement === view.contentDOM;
      view.dispatch({ effects: editable.reconfigure(value ? [] : READ_ONLY) });
      if (focused) view.focus();
      tools.refresh();
    },
    setMarking: (marking) => arrived.setMarking(view, marking),
    words: () => countWords(view.state.doc.toString()),
    onContent: (listener) => {
      contentListener = listener;
    },
    focus: () => view.focus(),
    destroy: () => {
      unfollow();
      view.destroy();
      undoManager.destroy();
    },
  };
}
