// ProseMirror on a Y.XmlFragment, as y-prosemirror binds it, and somebody who writes in it at random: with
// marks that overlap, nested lists, tables whose cells are merged, and attributes that are objects.
import './dom.js';
import * as commands from '@tiptap/pm/commands';
import { type Attrs, type MarkType, type Node, Schema } from '@tiptap/pm/model';
import * as lists from '@tiptap/pm/schema-list';
import {
  AllSelection,
  type Command,
  EditorState,
  NodeSelection,
  Selection,
  TextSelection,
  type Transaction,
} from '@tiptap/pm/state';
import * as tables from '@tiptap/pm/tables';
import { EditorView } from '@tiptap/pm/view';
import { redo, undo, ySyncPlugin, yUndoPlugin, yUndoPluginKey } from 'y-prosemirror';
import * as Y from 'yjs';
import type { Editor } from './code-editor.js';
import { type Random, TEXTS } from './random.js';

const schema = new Schema({
  nodes: {
    doc: { content: 'block+' },
    paragraph: {
      group: 'block',
      content: 'inline*',
      attrs: { layout: { default: null } },
      parseDOM: [{ tag: 'p' }],
      toDOM: () => ['p', 0],
    },
    heading: {
      group: 'block',
      content: 'inline*',
      attrs: { level: { default: 1 } },
      parseDOM: [1, 2, 3].map((level) => ({ tag: `h${level}`, attrs: { level } })),
      toDOM: (node) => [`h${node.attrs['level']}`, 0],
    },
    blockquote: {
      group: 'block',
      content: 'block+',
      parseDOM: [{ tag: 'blockquote' }],
      toDOM: () => ['blockquote', 0],
    },
    code_block: {
      group: 'block',
      content: 'text*',
      marks: '',
      code: true,
      defining: true,
      parseDOM: [{ tag: 'pre', preserveWhitespace: 'full' }],
      toDOM: () => ['pre', ['code', 0]],
    },
    bullet_list: {
      group: 'block',
      content: 'list_item+',
      parseDOM: [{ tag: 'ul' }],
      toDOM: () => ['ul', 0],
    },
    ordered_list: {
      group: 'block',
      content: 'list_item+',
      attrs: { order: { default: 1 } },
      parseDOM: [{ tag: 'ol' }],
      toDOM: () => ['ol', 0],
    },
    list_item: {
      content: 'paragraph block*',
      defining: true,
      parseDOM: [{ tag: 'li' }],
      toDOM: () => ['li', 0],
    },
    horizontal_rule: { group: 'block', parseDOM: [{ tag: 'hr' }], toDOM: () => ['hr'] },
    ...tables.tableNodes({ tableGroup: 'block', cellContent: 'block+', cellAttributes: {} }),
    text: { group: 'inline' },
    image: {
      inline: true,
      group: 'inline',
      attrs: { src: { default: null }, size: { default: null } },
      parseDOM: [{ tag: 'img[src]' }],
      toDOM: () => ['img'],
    },
    hard_break: {
      inline: true,
      group: 'inline',
      selectable: false,
      parseDOM: [{ tag: 'br' }],
      toDOM: () => ['br'],
    },
  },
  marks: {
    strong: { parseDOM: [{ tag: 'strong' }, { tag: 'b' }], toDOM: () => ['strong', 0] },
    em: { parseDOM: [{ tag: 'em' }], toDOM: () => ['em', 0] },
    code: { excludes: '_', parseDOM: [{ tag: 'code' }], toDOM: () => ['code', 0] },
    link: {
      attrs: { href: {}, title: { default: null } },
      inclusive: false,
      parseDOM: [{ tag: 'a[href]', getAttrs: (link) => ({ href: link.getAttribute('href') }) }],
      toDOM: () => ['a', 0],
    },
    // Of these there may be several at one place.
    remark: { attrs: { thread: {} }, excludes: '', toDOM: () => ['span', 0] },
  },
});

type NodeName = keyof typeof schema.nodes;

const PASTED = [
  '<p>plain</p>',
  '<h2>Title</h2><p>some <b>bold <em>both</em></b> <a href="/x">link</a></p><hr>',
  '<ul><li><p>one</p><ul><li><p>nested</p><ol><li><p>deep</p></li></ol></li></ul></li><li><p>two</p></li></ul>',
  '<table><tr><td><p>a</p></td><td><p>b</p></td></tr><tr><td colspan="2"><p>wide</p></td></tr></table>',
  '<pre><code>let x = 1;\n  y</code></pre><blockquote><p>said</p><p>again</p></blockquote>',
  `<p>${'many words '.repeat(100)}</p>`.repeat(5),
];

export function richEditor(type: Y.XmlFragment): Editor {
  const view = new EditorView(document.body, {
    dispatchTransaction(this: unknown, tr) {
      // Called before `view` is there: y-prosemirror renders at once.
      const own = this as EditorView;
      own.updateState(own.state.apply(withoutNodeSelection(tr)));
    },
    state: EditorState.create({
      schema,
      plugins: [ySyncPlugin(type), yUndoPlugin(), tables.tableEditing()],
    }),
  });
  const { undoManager } = yUndoPluginKey.getState(view.state) as { undoManager: Y.UndoManager };
  // Time would otherwise say what is undone together.
  undoManager.captureTimeout = Number.MAX_SAFE_INTEGER;
  return {
    edit: (random) => edit(view, random),
    undo: () => void undo(view.state),
    redo: () => void redo(view.state),
    pause: () => undoManager.stopCapturing(),
    destroy: () => view.destroy(),
  };
}

function edit(view: EditorView, random: Random): void {
  const { size } = view.state.doc.content;
  const from = random.below(size + 1);
  const action = random.weighed({
    ...{ type: 14, mark: 6, erase: 4, cut: 1, split: 5, join: 4, block: 3, list: 5, item: 5 },
    ...{ table: 2, cells: 6, leaf: 2, attribute: 2, paste: 3, move: 1 },
  });
  const length = action === 'cut' ? size >> 1 : random.below(action === 'type' ? 2 : 30);
  select(view, from, from + length);
  const run = (command: Command): boolean => command(view.state, (tr) => view.dispatch(tr));
  switch (action) {
    case 'type':
      for (const character of random.pick(TEXTS)) {
        view.dispatch(view.state.tr.replaceSelectionWith(schema.text(character)));
      }
      break;
    case 'mark':
      run(commands.toggleMark(...mark(random)));
      break;
    case 'erase':
    case 'cut':
      run(commands.deleteSelection);
      break;
    case 'split':
      run(
        commands.chainCommands(
          lists.splitListItem(schema.nodes.list_item),
          ...(random.below(2) === 0 ? [commands.newlineInCode] : [commands.exitCode]),
          commands.liftEmptyBlock,
          commands.splitBlockKeepMarks,
        ),
      );
      break;
    case 'join':
      run(random.pick([commands.joinBackward, commands.joinForward]));
      break;
    case 'block':
      run(
        random.pick([
          commands.setBlockType(schema.nodes.heading, { level: 1 + random.below(3) }),
          commands.setBlockType(schema.nodes.paragraph),
          commands.setBlockType(schema.nodes.code_block),
          commands.wrapIn(schema.nodes.blockquote),
          commands.lift,
        ]),
      );
      break;
    case 'list':
      run(
        random.pick([
          lists.wrapInList(schema.nodes.bullet_list),
          lists.wrapInList(schema.nodes.ordered_list, { order: 1 + random.below(9) }),
        ]),
      );
      break;
    case 'item':
      run(
        random.pick([
          lists.sinkListItem(schema.nodes.list_item),
          lists.sinkListItem(schema.nodes.list_item),
          lists.liftListItem(schema.nodes.list_item),
        ]),
      );
      break;
    case 'table':
      view.dispatch(view.state.tr.replaceSelectionWith(table(random)));
      break;
    case 'cells':
      selectCells(view, random);
      run(
        random.pick([
          ...[tables.addRowAfter, tables.addColumnBefore, tables.deleteRow, tables.deleteColumn],
          ...[tables.mergeCells, tables.mergeCells, tables.splitCell, tables.toggleHeaderRow],
          tables.setCellAttr('colwidth', [80 + random.below(100)]),
        ]),
      );
      break;
    case 'leaf':
      view.dispatch(view.state.tr.replaceSelectionWith(leaf(random)));
      break;
    case 'attribute':
      setAttribute(view, random);
      break;
    case 'paste':
      view.pasteHTML(random.pick(PASTED));
      break;
    case 'move': {
      const slice = view.state.selection.content();
      const { tr } = view.state;
      tr.deleteSelection();
      const target = tr.doc.resolve(gap(tr.doc, random.below(tr.doc.content.size + 1)));
      tr.setSelection(TextSelection.near(target));
      view.dispatch(tr.replaceSelection(slice));
      break;
    }
  }
}

/** Selects what a user can select between two places. */
function select(view: EditorView, from: number, to: number): void {
  const { doc, tr } = view.state;
  const [start, end] = [from, Math.min(to, doc.content.size)].map((at) =>
    doc.resolve(gap(doc, at)),
  );
  if (start && end) view.dispatch(tr.setSelection(TextSelection.between(start, end)));
}

/** Where a cursor can be: not between the halves of a surrogate pair. */
function gap(doc: Node, at: number): number {
  const unit = doc.textBetween(Math.max(at - 1, 0), at).charCodeAt(0);
  return unit >= 0xd800 && unit < 0xdc00 ? at + 1 : at;
}

/** y-prosemirror 1.3.7 throws when the node that is selected goes while others edit. */
function withoutNodeSelection(tr: Transaction): Transaction {
  if (!(tr.selection instanceof NodeSelection)) return tr;
  const { $from } = tr.selection;
  const found = Selection.findFrom($from, 1, true) ?? Selection.findFrom($from, -1, true);
  return tr.setSelection(found ?? new AllSelection(tr.doc));
}

/** Selects cells of a table, if there is one. */
function selectCells(view: EditorView, random: Random): void {
  const { doc, tr } = view.state;
  const found: number[][] = [];
  doc.descendants((node, position) => {
    if (node.type !== schema.nodes.table) return true;
    const map = tables.TableMap.get(node);
    found.push(map.map.map((cell) => position + 1 + cell));
    return true;
  });
  if (found.length === 0) return;
  const cells = random.pick(found);
  const selection = tables.CellSelection.create(doc, random.pick(cells), random.pick(cells));
  view.dispatch(tr.setSelection(selection));
}

function mark(random: Random): [MarkType, Attrs?] {
  const { strong, em, code, link, remark } = schema.marks;
  switch (random.below(6)) {
    case 0:
      return [link, { href: '/a?b=c', title: random.pick([null, 'title']) }];
    case 1:
    case 2:
      return [remark, { thread: { id: random.below(3), by: ['alice', null] } }];
    default:
      return [random.pick([strong, em, code])];
  }
}

function table(random: Random): Node {
  const { table, table_row, table_cell } = schema.nodes;
  const cells = () => Array.from({ length: 1 + columns }, () => table_cell.createAndFill() as Node);
  const columns = random.below(3);
  const rows = Array.from({ length: 1 + random.below(3) }, () => table_row.create(null, cells()));
  return table.create(null, rows);
}

function leaf(random: Random): Node {
  const { image, hard_break, horizontal_rule } = schema.nodes;
  const size = random.pick([null, { width: 40, height: 1.5, crop: [0, 1, null] }]);
  const picture = image.create({ src: random.pick(['/a.png', 'data:,']), size });
  return random.pick([picture, picture, hard_break.create(), horizontal_rule.create()]);
}

/** Changes an attribute of a random node that has one. */
function setAttribute(view: EditorView, random: Random): void {
  const values: Partial<Record<NodeName, [string, unknown]>> = {
    paragraph: ['layout', random.pick([null, 'right', { indent: 2, tabs: [1, 2] }, 7, true])],
    heading: ['level', 1 + random.below(3)],
    ordered_list: ['order', random.below(100)],
    image: ['size', random.pick([null, { width: random.below(500) }])],
  };
  const found: [number, string, unknown][] = [];
  view.state.doc.descendants((node, position) => {
    const value = values[node.type.name as NodeName];
    if (value !== undefined) found.push([position, ...value]);
    return true;
  });
  if (found.length > 0) view.dispatch(view.state.tr.setNodeAttribute(...random.pick(found)));
}
