// The page of one document: who is here, what is saved, and the editor.
import { type Cleanup, cleanupAll, h, icon, logo } from './dom.ts';
import { banner } from './banner.ts';
import type { Editor, MountEditor } from './editor.ts';
import { copyText, toast } from './overlay.ts';
import { peopleList } from './people.ts';
import { type Kind, linkTo, titleOf } from './place.ts';
import { DocumentSession } from './session.ts';
import { statusLine } from './status-line.ts';
import { themeButton } from './theme.ts';
import { mayEdit } from './words.ts';

/** How long after a merge what arrives is marked: one answer of the server may come in parts. */
const MERGE_MS = 1500;
/** Counting waits until typing pauses. */
const COUNT_AFTER_MS = 400;

interface DocumentPlace {
  readonly kind: Kind;
  readonly document: string;
}

export function documentPage(
  root: HTMLElement,
  place: DocumentPlace,
  mountEditor: MountEditor,
): Cleanup {
  const cleanups: Cleanup[] = [];
  const session = new DocumentSession(place.document);
  cleanups.push(() => session.destroy());
  const { title, folder } = titleOf(place.document);

  const toolbarHost = h('div', { class: 'toolbar-host' });
  const host = h('div', { class: `editor-host editor-${place.kind}` });
  const count = h('p', { class: 'fine count', 'aria-live': 'off' });
  const main = h('main', { class: 'sheet', id: 'main' }, toolbarHost, host);

  root.replaceChildren(
    h(
      'a',
      {
        class: 'skip-link',
        href: '#main',
        on: { click: (event) => (event.preventDefault(), editor.focus()) },
      },
      'To the text',
    ),
    h(
      'header',
      { class: 'bar document-bar' },
      h(
        'a',
        {
          class: 'home',
          href: linkTo('list'),
          'aria-label': 'All documents',
          title: 'All documents',
        },
        logo(),
      ),
      h(
        'div',
        { class: 'document-title' },
        h(
          'h1',
          { title: place.document },
          folder && h('span', { class: 'folder', text: folder }),
          title,
        ),
        statusLine(session, cleanups),
      ),
      h(
        'div',
        { class: 'bar-tools' },
        peopleList(session, cleanups),
        offlineSwitch(session, cleanups),
        copyLinkButton(place),
        themeButton(cleanups),
      ),
    ),
    banner(session, place, cleanups),
    main,
    h('footer', { class: 'page-foot' }, count),
  );

  const editor = mountEditor({
    doc: session.doc,
    awareness: session.awareness,
    host,
    toolbarHost,
    placeholder: place.kind === 'text' ? 'Start writing. Markdown is welcome.' : 'Start writing.',
  });
  cleanups.push(() => editor.destroy());
  showCount(editor, count, cleanups);
  // On a phone the keyboard would cover half of what one came to read.
  if (matchMedia('(pointer: fine)').matches) editor.focus();

  const refresh = () => {
    const view = session.view();
    // After a refusal there may be nothing to write in, and a copy of another history is for reading.
    const reachable = view.everSynced || !view.closed?.permanent;
    // Before the first answer nobody knows what is allowed, and writing offline is.
    editor.setEditable(mayEdit(view) && reachable && !view.fork);
    document.title = `${view.state === 'saved' ? '' : '● '}${title} · Cowrite`;
  };
  refresh();
  cleanups.push(session.onChange(refresh), watchMerges(session, editor), guardUnsaved(session));
  return () => cleanupAll(cleanups);
}

function showCount(editor: Editor, count: HTMLElement, cleanups: Cleanup[]): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = () => {
    const words = editor.words();
    count.textContent = `${words.toLocaleString()} ${words === 1 ? 'word' : 'words'}`;
  };
  editor.onContent(() => {
    clearTimeout(timer);
    timer = setTimeout(show, COUNT_AFTER_MS);
  });
  show();
  cleanups.push(() => clearTimeout(timer));
}

function copyLinkButton(place: DocumentPlace): HTMLElement {
  const label = h('span', { text: 'Copy link' });
  return h(
    'button',
    {
      class: 'button primary copy-link',
      type: 'button',
      'aria-label': 'Copy link',
      title: 'Copy the link to this document',
      'data-testid': 'copy-link',
      on: {
        click: async () => {
          const link = location.origin + linkTo(place);
          toast(
            (await copyText(link))
              ? 'Link copied. Whoever opens it writes with you.'
              : `This is the link: ${link}`,
          );
        },
      },
    },
    icon('link'),
    label,
  );
}

function offlineSwitch(session: DocumentSession, cleanups: Cleanup[]): HTMLElement {
  const button = h(
    'button',
    {
      class: 'switch',
      type: 'button',
      role: 'switch',
      title: 'Cut the connection, go on writing, and see how it is merged when you come back',
      'data-testid': 'offline-switch',
      on: { click: () => session.setPaused(!session.view().paused) },
    },
    h(
      'span',
      { class: 'switch-track', 'aria-hidden': 'true' },
      h('span', { class: 'switch-thumb' }),
    ),
    h('span', { class: 'switch-label', text: 'Go offline' }),
  );
  const refresh = () => button.setAttribute('aria-checked', String(session.view().paused));
  refresh();
  cleanups.push(session.onChange(refresh));
  return button;
}

/** Says what came together when a connection comes back, and marks what others wrote meanwhile. */
function watchMerges(session: DocumentSession, editor: Editor): Cleanup {
  const { doc } = session;
  let wasSynced = false;
  let offlineSince = 0;
  let mine = 0;
  let theirs = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const counted = (
    _update: Uint8Array,
    _origin: unknown,
    _doc: unknown,
    transaction: { local: boolean },
  ) => {
    if (offlineSince === 0) return;
    if (transaction.local) mine += 1;
    else theirs += 1;
  };
  doc.on('update', counted);
  const stop = session.onChange(() => {
    const { status, synced } = session.view();
    if (wasSynced && status !== 'connected' && offlineSince === 0) {
      offlineSince = performance.now();
      mine = 0;
      theirs = 0;
      clearTimeout(timer);
      editor.setMarking(true);
    }
    if (offlineSince > 0 && status === 'connected' && synced) {
      offlineSince = -1;
      timer = setTimeout(() => {
        offlineSince = 0;
        editor.setMarking(false);
        if (mine > 0 && theirs > 0)
          toast('Back online. Your edits and those of others are merged.');
        else if (mine > 0) toast('Back online. What you wrote offline is with everybody now.');
        else if (theirs > 0) toast('Back online. What others wrote meanwhile is here.');
      }, MERGE_MS);
    }
    wasSynced ||= synced;
  });
  return () => {
    doc.off('update', counted);
    stop();
    clearTimeout(timer);
  };
}

/** Asks before the tab closes over edits that are nowhere else. */
function guardUnsaved(session: DocumentSession): Cleanup {
  const guard = (event: BeforeUnloadEvent) => {
    if (session.view().state === 'not-saved') event.preventDefault();
  };
  addEventListener('beforeunload', guard);
  return () => removeEventListener('beforeunload', guard);
}
