// The server's CRDT against Yjs itself, with documents as editors make them: y-prosemirror and
// y-codemirror.next, each in its real editor, used at random by people who come and go.
import './dom.js';
import { describe } from 'vitest';
import * as Y from 'yjs';
import { codeEditor, type Editor } from './code-editor.js';
import { Gathering, plain } from './gathering.js';
import { Random, seeds } from './random.js';
import { richEditor } from './rich-editor.js';

const STEPS = 150;

interface Kind {
  readonly mount: (doc: Y.Doc) => Editor;
  readonly content: (doc: Y.Doc) => unknown;
}

const rich: Kind = {
  mount: (doc) => richEditor(doc.getXmlFragment('default')),
  content: (doc) => plain(doc.getXmlFragment('default')),
};

const code: Kind = {
  mount: (doc) => codeEditor(doc.getText('content')),
  content: (doc) => plain(doc.getText('content')),
};

/** Two or three people, a program of `STEPS` steps, and what there is in the end. */
async function program(kind: Kind, document: string, seed: number): Promise<void> {
  const random = new Random(seed);
  const gathering = await Gathering.start(document, random);
  try {
    const writers: { person: Awaited<ReturnType<Gathering['join']>>; editor: Editor }[] = [];
    for (let i = 2 + random.below(2); i > 0; i--) {
      const person = await gathering.join();
      const editor = kind.mount(person.doc);
      gathering.defer(() => editor.destroy());
      writers.push({ person, editor });
    }
    for (let step = 0; step < STEPS; step++) {
      const { person, editor } = random.pick(writers);
      switch (random.weighed({ edit: 40, undo: 4, redo: 3, pause: 6, leave: 1, back: 2 })) {
        case 'edit':
          editor.edit(random);
          break;
        case 'undo':
          editor.undo();
          break;
        case 'redo':
          editor.redo();
          break;
        case 'pause':
          editor.pause();
          break;
        case 'leave':
          person.provider.disconnect();
          break;
        case 'back':
          person.provider.connect();
          break;
      }
      if (random.below(6) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await gathering.ends(kind.content);
  } finally {
    await gathering.dispose();
  }
}

describe('the server takes what editors make, and keeps it', () => {
  seeds('editors.spec.ts', 'ProseMirror', 8, (seed) => program(rich, `rich/${seed}`, seed));
  seeds('editors.spec.ts', 'CodeMirror', 4, (seed) => program(code, `code/${seed}`, seed));
});
