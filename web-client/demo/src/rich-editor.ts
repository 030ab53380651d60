// The rich-text page: Tiptap on the fragment `default`, the one that its collaboration extension names.
import { Editor as Tiptap } from '@tiptap/core';
import Collaboration from '@tiptap/extension-collaboration';
import CollaborationCaret from '@tiptap/extension-collaboration-caret';
import { Placeholder } from '@tiptap/extensions';
import StarterKit from '@tiptap/starter-kit';

import { caretElement, followCarets } from './caret.ts';
import { CheckedAwareness, type CheckedState } from './checked-awareness.ts';
import { countWords, type Editor, type EditorOptions } from './editor.ts';
import { awarenessUser, me } from './person.ts';
import { richArrivals } from './rich-arrivals.ts';
import { toolbar } from './toolbar.ts';

export function mountEditor({
  doc,
  awareness,
  host,
  toolbarHost,
  placeholder,
}: EditorOptions): Editor {
  let contentListener = () => {};
  const checked = new CheckedAwareness(awareness);
  const arrived = richArrivals();
  const editor = new Tiptap({
    element: host,
    // Its style element is replaced by our style sheet.
    injectCSS: false,
    editorProps: {
      attributes: {
        'aria-label': 'Document text',
        'aria-multiline': 'true',
        role: 'textbox',
        // Focusable also when it is only read.
        tabindex: '0',
        'data-testid': 'editor',
        spellcheck: 'true',
      },
    },
    extensions: [
      // Undo belongs to the collaboration extension: it leaves the edits of others alone. A trailing
      // paragraph would be an edit by whoever only looks.
      StarterKit.configure({ undoRedo: false, trailingNode: false, link: { openOnClick: false } }),
      Placeholder.configure({ placeholder }),
      Collaboration.configure({ document: doc }),
      arrived.extension,
      CollaborationCaret.configure({
        provider: { awareness: checked },
        user: awarenessUser(me()),
        render: (user) => caretElement(user as CheckedState['user']),
        selectionRender: (user) => ({
          nodeName: 'span',
          class: 'selection-of',
          style: `--person: ${(user as CheckedState['user']).color}`,
        }),
      }),
    ],
  });

  const chain = () => editor.chain().focus();
  const heading = (level: 1 | 2 | 3) => ({
    name: `Heading ${level}`,
    face: { letters: `H${level}` },
    keys: `Mod-Alt-${level}`,
    run: () => chain().toggleHeading({ level }).run(),
    pressed: () => editor.isActive('heading', { level }),
  });
  const tools = toolbar(
    'Formatting',
    [
      [
        {
          name: 'Undo',
          face: 'undo',
          keys: 'Mod-Z',
          run: () => chain().undo().run(),
          enabled: () => editor.can().undo(),
        },
        {
          name: 'Redo',
          face: 'redo',
          keys: 'Mod-Shift-Z',
          run: () => chain().redo().run(),
          enabled: () => editor.can().redo(),
        },
      ],
      [heading(1), heading(2), heading(3)],
      [
        {
          name: 'Bold',
          face: 'bold',
          keys: 'Mod-B',
          run: () => chain().toggleBold().run(),
          pressed: () => editor.isActive('bold'),
        },
        {
          name: 'Italic',
          face: 'italic',
          keys: 'Mod-I',
          run: () => chain().toggleItalic().run(),
          pressed: () => editor.isActive('italic'),
        },
        {
          name: 'Strikethrough',
          face: 'strike',
          keys: 'Mod-Shift-S',
          run: () => chain().toggleStrike().run(),
          pressed: () => editor.isActive('strike'),
        },
        {
          name: 'Code',
          face: 'code',
          keys: 'Mod-E',
          run: () => chain().toggleCode().run(),
          pressed: () => editor.isActive('code'),
        },
      ],
      [
        {
          name: 'Bullet list',
          face: 'bullet-list',
          keys: 'Mod-Shift-8',
          run: () => chain().toggleBulletList().run(),
          pressed: () => editor.isActive('bulletList'),
        },
        {
          name: 'Numbered list',
          face: 'ordered-list',
          keys: 'Mod-Shift-7',
          run: () => chain().toggleOrderedList().run(),
          pressed: () => editor.isActive('orderedList'),
        },
        {
          name: 'Quote',
          face: 'quote',
          keys: 'Mod-Shift-B',
          run: () => chain().toggleBlockquote().run(),
          pressed: () => editor.isActive('blockquote'),
        },
        {
          name: 'Code block',
          face: 'code-block',
          keys: 'Mod-Alt-C',
          run: () => chain().toggleCodeBlock().run(),
          pressed: () => editor.isActive('codeBlock'),
        },
      ],
    ],
    () => editor.isEditable,
  );
  toolbarHost.append(tools.element);
  editor.on('update', () => contentListener());
  editor.on('transaction', () => tools.refresh());
  const unfollow = followCarets(host, checked);

  return {
    setEditable: (value) => {
      if (value === editor.isEditable) return;
      const { dom, root } = editor.view;
      // Chromium takes the focus from what is no longer editable.
      const focused = root.activeElement === dom;
      editor.setEditable(value, false);
      if (focused) dom.focus();
      tools.refresh();
    },
    setMarking: (marking) => arrived.setMarking(editor.view, marking),
    words: () => countWords(editor.getText({ blockSeparator: '\n' })),
    onContent: (listener) => {
      contentListener = listener;
    },
    focus: () => editor.commands.focus(),
    destroy: () => {
      unfollow();
      editor.destroy();
    },
  };
}
