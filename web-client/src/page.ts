// What a browser tells a page about its life. Where there is no page, nothing.

/** What to do when the page's life changes. */
export interface PagePorts {
  /** The page goes, for good or into the back-forward cache. */
  readonly hide: () => void;
  /** The page was taken out of the back-forward cache. */
  readonly show: () => void;
  /** The page is looked at again, or the network has come back. */
  readonly wake: () => void;
}

/** Listens to the page. Returns what ends that. */
export function watchPage(ports: PagePorts): () => void {
  if (typeof window === 'undefined' || typeof document === 'undefined') return () => undefined;
  const end = new AbortController();
  const { signal } = end;
  const visible = () => {
    if (document.visibilityState === 'visible') ports.wake();
  };
  window.addEventListener('pagehide', () => ports.hide(), { signal });
  window.addEventListener('pageshow', (event) => event.persisted && ports.show(), { signal });
  window.addEventListener('online', () => ports.wake(), { signal });
  document.addEventListener('visibilitychange', visible, { signal });
  document.addEventListener('resume', () => ports.wake(), { signal });
  return () => end.abort();
}

/** The page is looked at, or there is none. */
export function isVisible(): boolean {
  return typeof document === 'undefined' || document.visibilityState === 'visible';
}

/**
 * Asks people whether they want to leave, as long as it is switched on: a listener that is always
 * there would keep the page out of the back-forward cache.
 */
export class LeaveWarning {
  private on = false;

  /** Switches it on or off. */
  set(on: boolean): void {
    if (on === this.on || typeof window === 'undefined') return;
    this.on = on;
    if (on) window.addEventListener('beforeunload', ask);
    else window.removeEventListener('beforeunload', ask);
  }
}

function ask(event: Event): void {
  event.preventDefault();
}
