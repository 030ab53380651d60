// The banner under the header: what stands between a person and editing, in words.
import { type Cleanup, h, icon, type IconName } from './dom.ts';
import { type Kind, linkTo, newDocumentId } from './place.ts';
import { beginWith, type DocumentSession, type SessionView } from './session.ts';
import { tokenForm } from './token.ts';
import { refusal } from './words.ts';

interface Notice {
  readonly key: string;
  readonly tone: 'info' | 'care' | 'bad';
  readonly icon: IconName;
  readonly title: string;
  readonly text: string;
  readonly actions?: () => readonly Node[];
}

/** A first connection that takes longer than this is worth a word. */
const SLOW_MS = 4000;

function noticeOf(
  session: DocumentSession,
  kind: Kind,
  view: SessionView,
  slow: boolean,
): Notice | null {
  const { closed } = view;
  if (closed?.permanent) {
    const words = refusal(closed);
    return {
      key: `closed ${closed.reason} ${closed.message}`,
      tone: closed.reason === 'UNAUTHENTICATED' ? 'info' : 'bad',
      icon: closed.reason === 'UNAUTHENTICATED' ? 'lock' : 'alert',
      title: words.title,
      text: words.long,
      actions: () =>
        closed.reason === 'UNAUTHENTICATED'
          ? [tokenForm(() => session.reopen())]
          : [
              h(
                'button',
                { class: 'button', type: 'button', on: { click: () => session.reopen() } },
                icon('retry'),
                'Try again',
              ),
              h('a', { class: 'button quiet', href: linkTo('list') }, 'All documents'),
            ],
    };
  }
  const { fork } = view;
  if (fork) {
    return {
      key: 'fork',
      tone: 'care',
      icon: 'device',
      title: 'A copy of yours was kept',
      text: 'The document was replaced on the server. Joining your older copy with it would double the text, so you have both.',
      actions: () => {
        const document = newDocumentId(kind);
        const open = () => beginWith(document, fork);
        return [
          h(
            'a',
            { class: 'button', href: linkTo({ kind, document }), on: { click: open } },
            'Open my copy as a new document',
          ),
        ];
      },
    };
  }
  if (view.access === 'read' && view.status === 'connected') {
    return {
      key: 'read',
      tone: 'info',
      icon: 'lock',
      title: 'You are reading',
      text: 'Changes of others appear here. Your token does not let you write.',
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
  return null;
}

export function banner(session: DocumentSession, kind: Kind, cleanups: Cleanup[]): HTMLElement {
  const element = h('section', {
    class: 'banner',
    'data-testid': 'banner',
    'aria-label': 'Notice',
    'aria-live': 'polite',
    hidden: true,
  });
  let dismissed = '';
  let slow = false;
  const refresh = () => {
    const notice = noticeOf(session, kind, session.view(), slow);
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
      h(
        'div',
        { class: 'banner-actions' },
        ...(notice.actions?.() ?? []),
        notice.tone !== 'bad' &&
          notice.key !== 'slow' &&
          !notice.actions &&
          h(
            'button',
            {
              class: 'icon-button',
              type: 'button',
              'aria-label': 'Close this notice',
              title: 'Close',
              on: {
                click: () => {
                  dismissed = notice.key;
                  refresh();
                },
              },
            },
            icon('close'),
          ),
      ),
    );
  };
  const timer = setTimeout(() => {
    slow = true;
    refresh();
  }, SLOW_MS);
  refresh();
  cleanups.push(session.onChange(refresh), () => clearTimeout(timer));
  return element;
}
