// The list of documents: what there is, where people are now, and a way to begin.
import { listDocuments } from 'cowrite-client';

import { type Cleanup, cleanupAll, h, icon, type IconName, logo, setText } from './dom.ts';
import { ownAvatar } from './people.ts';
import {
  documentIdFrom,
  type Kind,
  kindOf,
  linkTo,
  newDocumentId,
  serverUrl,
  titleOf,
} from './place.ts';
import { themeButton } from './theme.ts';
import { token, tokenForm } from './token.ts';

interface Entry {
  readonly id: string;
  readonly sequence: bigint;
  readonly sessions: number;
}

const PAGE_SIZE = 50;
/** How old the list gets while it is looked at. */
const REFRESH_MS = 4000;
/** The first time sooner: whoever comes from a document is about to be gone from it. */
const FIRST_REFRESH_MS = 800;
/** From here on a search field is worth its place. */
const SEARCH_FROM = 8;

type State =
  | { readonly kind: 'loading' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly code: string };

export function listPage(root: HTMLElement, open: (kind: Kind, document: string) => void): Cleanup {
  const cleanups: Cleanup[] = [];
  let entries: readonly Entry[] = [];
  let more = false;
  let pages = 1;
  let state: State = { kind: 'loading' };
  let gone = false;
  let refreshIn = FIRST_REFRESH_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const rows = new Map<string, Row>();

  const list = h('ul', { class: 'documents' });
  const notice = h('div', { class: 'list-notice', 'aria-live': 'polite' });
  const summary = h('span', { class: 'fine' });
  const search = h('input', {
    class: 'field',
    type: 'search',
    placeholder: 'Find a document',
    'aria-label': 'Find a document',
    spellcheck: 'false',
    autocomplete: 'off',
    'data-testid': 'search',
    on: { input: () => show() },
  });
  const searchBox = h('div', { class: 'search-box', hidden: true }, icon('search'), search);
  const moreButton = h('button', {
    class: 'button more-documents',
    type: 'button',
    hidden: true,
    text: 'Show more',
    on: {
      click: () => {
        pages += 1;
        void load();
      },
    },
  });
  const heading = h('h2', { text: 'Documents' });

  root.replaceChildren(
    h('a', { class: 'skip-link', href: '#main' }, 'To the documents'),
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'home wordmark', href: linkTo('list') }, logo(), 'Cowrite'),
      h('div', { class: 'bar-tools' }, ownAvatar(cleanups), themeButton(cleanups)),
    ),
    h(
      'main',
      { class: 'list-page', id: 'main', tabindex: -1 },
      h(
        'section',
        { class: 'begin', 'aria-labelledby': 'begin' },
        h('h1', { id: 'begin', text: 'Write together.' }),
        h('p', {
          class: 'lead',
          text: 'Open a document, send its link, and type at the same time. What says “Saved” is on the disk of the server.',
        }),
        h(
          'div',
          { class: 'begin-buttons' },
          beginButton('text', 'New text document', 'Plain text, with Markdown', () =>
            open('text', newDocumentId('text')),
          ),
          beginButton('rich', 'New rich-text document', 'Headings, lists and bold', () =>
            open('rich', newDocumentId('rich')),
          ),
        ),
      ),
      h(
        'section',
        { class: 'shelf', 'aria-label': 'Documents', 'data-testid': 'doc-list' },
        h('div', { class: 'shelf-head' }, heading, summary, searchBox),
        list,
        notice,
        moreButton,
      ),
    ),
  );
  document.title = 'Cowrite';

  const load = async () => {
    clearTimeout(timer);
    try {
      const given = token();
      const found: Entry[] = [];
      let pageToken: string | undefined;
      for (let page = 0; page < pages; page += 1) {
        const answer = await listDocuments({
          url: serverUrl(),
          pageSize: PAGE_SIZE,
          ...(given === undefined ? {} : { token: given }),
          ...(pageToken === undefined ? {} : { pageToken }),
        });
        found.push(...answer.documents);
        pageToken = answer.nextPageToken;
        if (pageToken === undefined) break;
      }
      // Where people are comes first; the server's order is kept within.
      entries = [
        ...found.filter((entry) => entry.sessions > 0),
        ...found.filter((entry) => entry.sessions === 0),
      ];
      more = pageToken !== undefined;
      state = { kind: 'ready' };
    } catch (error) {
      state = { kind: 'failed', code: codeOf(error) };
    }
    if (gone) return;
    show();
    timer = setTimeout(tick, refreshIn);
    refreshIn = REFRESH_MS;
  };
  const tick = () => {
    if (document.visibilityState === 'visible') void load();
  };

  const show = () => {
    const query = search.value.trim().toLowerCase();
    const shown = query
      ? entries.filter((entry) => entry.id.toLowerCase().includes(query))
      : entries;
    searchBox.hidden = !query && entries.length < SEARCH_FROM && !more;
    moreButton.hidden = state.kind !== 'ready' || !more;
    heading.hidden = state.kind === 'ready' && entries.length === 0;
    setText(
      summary,
      state.kind === 'ready' && entries.length > 0
        ? countText(shown.length, entries.length, more)
        : '',
    );
    showRows(list, rows, shown);
    showNotice(query, shown);
  };

  const showNotice = (query: string, shown: readonly Entry[]) => {
    const key = `${state.kind} ${state.kind === 'failed' ? state.code : ''} ${entries.length === 0} ${shown.length === 0 ? query : ''}`;
    if (notice.dataset.shown === key) return;
    notice.dataset.shown = key;
    list.classList.toggle('stale', state.kind === 'failed');
    if (state.kind === 'loading') {
      notice.replaceChildren(
        h(
          'div',
          { class: 'skeleton', role: 'status', 'aria-label': 'Loading' },
          h('span'),
          h('span'),
          h('span'),
        ),
      );
    } else if (state.kind === 'failed' && state.code === 'UNAUTHENTICATED') {
      notice.replaceChildren(
        message(
          'lock',
          'This server asks for a token',
          'Ask whoever runs it for one. It is kept in this tab only.',
          tokenForm(() => void load()),
        ),
      );
    } else if (state.kind === 'failed') {
      const retry = h(
        'button',
        {
          class: 'button',
          type: 'button',
          'data-testid': 'retry',
          on: {
            click: () => {
              state = { kind: 'loading' };
              show();
              void load();
            },
          },
        },
        icon('retry'),
        'Try again',
      );
      notice.replaceChildren(
        message(
          'wifi-off',
          'The server does not answer',
          `Tried ${new URL(serverUrl()).host}. The page keeps trying; documents you opened before can be edited meanwhile.`,
          retry,
        ),
      );
    } else if (entries.length === 0) {
      notice.replaceChildren(
        message(
          duet(),
          'Nothing here yet',
          'Begin a document above, and send its link to somebody. It appears here for all who use this server.',
        ),
      );
    } else if (shown.length === 0) {
      const text = documentIdFrom('text', query);
      const rich = documentIdFrom('rich', query);
      notice.replaceChildren(
        message(
          'search',
          `No document is called “${query}”`,
          more
            ? 'There are more documents than are shown here. You can also begin one with this name.'
            : 'You can begin one with this name.',
          h(
            'div',
            { class: 'begin-named' },
            text &&
              h(
                'a',
                { class: 'button', href: linkTo({ kind: 'text', document: text }) },
                icon('text'),
                'As text',
              ),
            rich &&
              h(
                'a',
                { class: 'button', href: linkTo({ kind: 'rich', document: rich }) },
                icon('rich'),
                'As rich text',
              ),
          ),
        ),
      );
    } else notice.replaceChildren();
  };

  show();
  void load();
  document.addEventListener('visibilitychange', tick);
  cleanups.push(() => {
    gone = true;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', tick);
  });
  return () => cleanupAll(cleanups);
}

function beginButton(kind: Kind, name: string, hint: string, begin: () => void): HTMLElement {
  return h(
    'button',
    {
      class: `begin-button begin-${kind}`,
      type: 'button',
      'data-testid': `new-${kind}`,
      on: { click: begin },
    },
    h('span', { class: 'begin-icon' }, icon(kind)),
    h('span', { class: 'begin-words' }, h('strong', { text: name }), h('span', { text: hint })),
    icon('plus'),
  );
}

/** A picture of what this is for: two carets in a few lines. */
function duet(): HTMLElement {
  const line = (name: string, color: string) => {
    const element = h('span', { class: 'with-caret', 'data-name': name });
    element.style.setProperty('--person', color);
    return element;
  };
  return h(
    'div',
    { class: 'duet', 'aria-hidden': 'true' },
    line('You', '#0f766e'),
    h('span'),
    line('A friend', '#c2410c'),
  );
}

function message(
  face: IconName | HTMLElement,
  title: string,
  text: string,
  action?: HTMLElement,
): HTMLElement {
  const picture =
    typeof face === 'string' ? h('span', { class: 'message-icon' }, icon(face)) : face;
  return h(
    'div',
    { class: 'message' },
    picture,
    h('strong', { text: title }),
    h('p', { text }),
    action,
  );
}

function countText(shown: number, loaded: number, more: boolean): string {
  if (shown < loaded) return `${shown} of ${loaded}${more ? '+' : ''}`;
  return `${loaded}${more ? '+' : ''}`;
}

interface Row {
  readonly element: HTMLLIElement;
  readonly update: (entry: Entry) => void;
}

/** Rows stay the same elements, so that focus and scroll position survive a refresh. */
function showRows(list: HTMLElement, rows: Map<string, Row>, entries: readonly Entry[]): void {
  const wanted = new Set(entries.map((entry) => entry.id));
  for (const [id, row] of rows) {
    if (wanted.has(id)) continue;
    row.element.remove();
    rows.delete(id);
  }
  const focused = document.activeElement;
  let before: Element | null = list.firstElementChild;
  for (const entry of entries) {
    let row = rows.get(entry.id);
    if (!row) {
      row = makeRow(entry.id);
      rows.set(entry.id, row);
    }
    row.update(entry);
    if (row.element === before) before = before.nextElementSibling;
    else list.insertBefore(row.element, before);
  }
  // Moving a row takes the focus from the link in it.
  if (
    focused instanceof HTMLElement &&
    focused !== document.activeElement &&
    list.contains(focused)
  )
    focused.focus();
}

function makeRow(id: string): Row {
  const kind = kindOf(id);
  const { title, folder } = titleOf(id);
  const here = h('span', { class: 'here' });
  const edits = h('span', { class: 'edits fine' });
  const element = h(
    'li',
    { 'data-document': id },
    h(
      'a',
      { class: 'document', href: linkTo({ kind, document: id }) },
      h('span', { class: `kind kind-${kind}` }, icon(kind)),
      h(
        'span',
        { class: 'document-words' },
        h(
          'span',
          { class: 'document-name' },
          folder && h('span', { class: 'folder', text: folder }),
          h('span', { class: 'name', text: title }),
        ),
        here,
      ),
      h('span', { class: 'kind-name fine', text: kind === 'rich' ? 'Rich text' : 'Text' }),
      edits,
      icon('arrow'),
    ),
  );
  const update = ({ sequence, sessions }: Entry) => {
    setText(here, sessions === 0 ? '' : `${sessions} here now`);
    setText(edits, `${sequence.toLocaleString()} ${sequence === 1n ? 'edit' : 'edits'}`);
  };
  return { element, update };
}

/** The reason of a refusal, where the error has one. */
function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  const { reason, code } = error as { reason?: unknown; code?: unknown };
  if (typeof reason === 'string') return reason;
  return typeof code === 'string' ? code : '';
}
