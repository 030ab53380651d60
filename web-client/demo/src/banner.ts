// The banner under the header: what stands between a person and editing, in words.
import { type Cleanup, h, icon, type IconName } from './dom.ts';
import { type Kept, keptCopy } from './kept.ts';
import { type Kind, linkTo, newDocumentId } from './place.ts';
import { beginWith, type DocumentSession } from './session.ts';
import { token, tokenForm } from './token.ts';
import { mayEdit, refusal } from './words.ts';

interface Notice {
  readonly key: string;
  readonly tone: 'info' | 'care' | 'bad';
  readonly icon: IconName;
  readonly title: string;
  readonly text: string;
  readonly actions?: () => readonly Node[];
  readonly dismissable?: boolean;
}

/** A first connection that takes longer than this is worth a word. */
const SLOW_MS = 4000;

interface Circumstances {
  readonly kind: Kind;
  /** The first connection takes long. */
  readonly slow: boolean;
  /** A copy of an older history of the document. */
  readonly kept: Kept | null;
}

function noticeOf(session: DocumentSession, { kind, slow, kept }: Circumstances): Notice | null {
  const view = session.view();
  const { closed } = view;
  if (view.fork) {
    const { fork } = view;
    return {
      key: 'fork',
      tone: 'care',
      icon: 'device',
      title: 'The document was replaced on the server',
      text: 'This is your copy of the older one. Joining the two would double the text, so you have both: your copy is kept in this browser.',
      actions: () => [
        button('retry', 'Show the document as it is now', () => location.reload()),
        copyLink(kind, 'Open my copy as a new document', fork),
      ],
    };
  }
  if (closed?.permanent && NEEDS_TOKEN.has(closed.reason)) {
    const words = refusal(closed);
    const given = token() !== undefined;
    return {
      key: `token ${token()}`,
      tone: 'info',
      icon: 'lock',
      title: given ? 'The server did not accept this token' : words.title,
      text: words.long,
      actions: () => [tokenForm(() => session.retry())],
    };
  }
  if (closed?.permanent) {
    const words = refusal(closed);
    return {
      key: `closed ${closed.reason} ${closed.message}`,
      tone: 'bad',
      icon: 'alert',
      title: words.title,
      text: words.long,
      actions: () => [
        button('retry', 'Try again', () => session.retry()),
        h('a', { class: 'button quiet', href: linkTo('list') }, 'All documents'),
      ],
    };
  }
  if (view.unkept) {
    return {
      key: 'unkept',
      tone: 'care',
      icon: 'device',
      title: 'This browser keeps no copy',
      text: 'What you write without a connection is in this tab only, until the server has it.',
      dismissable: true,
    };
  }
  if (!mayEdit(view) && view.status === 'connected') {
    return {
      key: 'read',
      tone: 'info',
      icon: 'lock',
      title: 'You are reading',
      text: 'Changes of others appear here. Your token does not let you write.',
      dismissable: true,
    };
  }
  if (slow && !view.synced && !view.paused && view.status !== 'connected') {
    return {
      key: 'slow',
      tone: 'care',
      icon: 'wifi-off',
      title: 'The server does not answer',
      text: 'You see the copy in this browser, if there is one. You can write: it is kept here, and goes to the server when it answers.',
    };
  }
  if (kept) {
    return {
      key: `kept ${kept.name}`,
      tone: 'info',
      icon: 'device',
      title: 'An older copy of yours is kept in this browser',
      text: 'It is from before the document was replaced on the server.',
      actions: () => [
        copyLink(kind, 'Open it as a new document', kept.update),
        button('close', 'Delete it', kept.forget),
      ],
      dismissable: true,
    };
  }
  return null;
}

function button(face: IconName, text: string, run: () => void): HTMLElement {
  return h('button', { class: 'button', type: 'button', on: { click: run } }, icon(face), text);
}

/** A link to a new document, which begins with `update`. */
function copyLink(kind: Kind, text: string, update: Uint8Array): HTMLElement {
  const document = newDocumentId(kind);
  const begin = () => beginWith(document, update);
  return h(
    'a',
    { class: 'button', href: linkTo({ kind, document }), on: { click: begin } },
    icon('plus'),
    text,
  );
}

/** Refusals that another token can help against. */
const NEEDS_TOKEN: ReadonlySet<string> = new Set([
  'UNAUTHENTICATED',
  'TOKEN_EXPIRED',
  'TOKEN_REVOKED',
  'FORBIDDEN',
]);

export function banner(
  session: DocumentSession,
  { kind, document }: { readonly kind: Kind; readonly document: string },
  cleanups: Cleanup[],
): HTMLElement {
  const element = h('section', {
    class: 'banner',
    'data-testid': 'banner',
    'aria-label': 'Notice',
    'aria-live': 'polite',
    hidden: true,
  });
  let dismissed = '';
  let slow = false;
  let kept: Kept | null = null;
  const refresh = () => {
    const notice = noticeOf(session, { kind, slow, kept });
    if (!notice || notice.key === dismissed) {
      element.hidden = true;
      element.dataset.key = '';
      element.replaceChildren();
      return;
    }
    if (element.dataset.key === notice.key) return;
    element.dataset.key = notice.key;
    element.dataset.tone = notice.tone;
    element.hidden = false;
    element.replaceChildren(
      icon(notice.icon),
      h(
        'div',
        { class: 'banner-words' },
        h('strong', { text: notice.title }),
        h('span', { text: notice.text }),
      ),
      h('div', { class: 'banner-actions' }, ...(notice.actions?.() ?? [])),
      ...(notice.dismissable
        ? [
            closeButton(() => {
              dismissed = notice.key;
              refresh();
            }),
          ]
        : []),
    );
  };
  const timer = setTimeout(() => {
    slow = true;
    refresh();
  }, SLOW_MS);
  const lookForKept = async () => {
    kept = await keptCopy(document, () => void lookForKept());
    refresh();
  };
  refresh();
  void lookForKept();
  cleanups.push(session.onChange(refresh), () => clearTimeout(timer));
  return element;
}

function closeButton(close: () => void): HTMLElement {
  return h(
    'button',
    {
      class: 'icon-button banner-close',
      type: 'button',
      'aria-label': 'Close this notice',
      title: 'Close',
      on: { click: close },
    },
    icon('close'),
  );
}
