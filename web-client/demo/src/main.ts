// Begins here: shows the page that the address names, and follows links without loading again.
import { type Cleanup, h, icon, logo } from './dom.ts';
import { linkTo, type Place, placeOf } from './place.ts';
import { startTheme } from './theme.ts';

const root = document.querySelector<HTMLElement>('#app')!;
let leave: Cleanup = () => {};
let visit = 0;

async function show(): Promise<void> {
  const current = ++visit;
  try {
    const page = await load(placeOf(location.pathname));
    if (current === visit) enter(page);
  } catch {
    // After an update of the server, the parts of an older page are gone.
    if (current === visit)
      enter(() =>
        messagePage(
          'This page is out of date',
          'Load it again to go on. What you wrote is kept.',
          reloadButton(),
        ),
      );
  }
}

/** Loads what a page needs when it is first shown: the list goes without an editor. */
async function load(place: Place): Promise<() => Cleanup> {
  switch (place.page) {
    case 'list': {
      const { listPage } = await import('./list-page.ts');
      return () => listPage(root, (kind, document) => go(linkTo({ kind, document })));
    }
    case 'document': {
      // Together, not one after the other.
      const [{ documentPage }, { mountEditor }] = await Promise.all([
        import('./document-page.ts'),
        place.kind === 'text' ? import('./text-editor.ts') : import('./rich-editor.ts'),
      ]);
      return () => documentPage(root, place, mountEditor);
    }
    case 'unknown':
      return () =>
        messagePage(
          'No such page',
          place.reason,
          h('a', { class: 'button primary', href: linkTo('list') }, 'All documents'),
        );
  }
}

function reloadButton(): HTMLElement {
  return h(
    'button',
    { class: 'button primary', type: 'button', on: { click: () => location.reload() } },
    icon('retry'),
    'Load again',
  );
}

function enter(page: () => Cleanup): void {
  leave();
  leave = page();
  scrollTo(0, 0);
}

function go(link: string): void {
  history.pushState(null, '', link);
  void show();
}

function messagePage(title: string, text: string, action: HTMLElement): Cleanup {
  document.title = `${title} · Cowrite`;
  root.replaceChildren(
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'home wordmark', href: linkTo('list') }, logo(), 'Cowrite'),
    ),
    h(
      'main',
      { class: 'list-page' },
      h(
        'div',
        { class: 'message' },
        h('span', { class: 'message-icon' }, icon('search')),
        h('h1', { text: title }),
        h('p', { text }),
        action,
      ),
    ),
  );
  return () => {};
}

/** Links of this page are followed without loading it again. */
function followLinks(event: MouseEvent): void {
  if (
    event.defaultPrevented ||
    event.button !== 0 ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return;
  const link = (event.target as Element).closest?.('a');
  if (!link || link.origin !== location.origin || link.target || link.closest('[contenteditable]'))
    return;
  if (link.hash && link.pathname === location.pathname) return;
  if (placeOf(link.pathname).page === 'unknown') return;
  event.preventDefault();
  go(link.pathname + link.search);
}

startTheme();
document.addEventListener('click', followLinks);
addEventListener('popstate', () => void show());
void show();
