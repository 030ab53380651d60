// A tab with our own client in it, on a page that has the origin of the server.

import type { BrowserContext, Page as Tab } from 'playwright-core';
import { bundle } from './bundle.ts';
import type { Own, OwnOptions } from './own-page.ts';
import type { Door } from './server.ts';
import { until } from './wait.ts';

/** Where the page is. The server never sees it: Chromium gets it from the test. */
const PATH = '/test-page';

declare const own: Own;

/** What can be asked of the page. */
type Call = {
  readonly [name in keyof Own]: (
    ...args: Parameters<Own[name]>
  ) => Promise<Awaited<ReturnType<Own[name]>>>;
};

/** One tab. */
export class OwnTab {
  readonly tab: Tab;
  /** The page's own functions. */
  readonly page: Call;
  readonly #url: string;

  private constructor(tab: Tab, url: string) {
    this.tab = tab;
    this.#url = url;
    this.page = new Proxy({} as Call, {
      get:
        (_, name) =>
        (...args: unknown[]) =>
          tab.evaluate(
            ([name, args]) => {
              const called = own[name as keyof Own] as (...args: readonly unknown[]) => unknown;
              return called(...args);
            },
            [String(name), args] as const,
          ),
    });
  }

  /** A tab without a document. */
  static async empty(
    context: BrowserContext,
    door: Door,
    program = 'own-page.ts',
  ): Promise<OwnTab> {
    const tab = await context.newPage();
    const own = new OwnTab(tab, `${door.http}${PATH}`);
    await own.load(program);
    return own;
  }

  /** A tab that has the document. */
  static async open(context: BrowserContext, door: Door, options: OwnOptions): Promise<OwnTab> {
    const own = await OwnTab.empty(context, door);
    await own.page.open(options);
    await own.synced();
    return own;
  }

  /** Loads the page, or loads it again: what it knew is gone, what it stored is there. */
  async load(program = 'own-page.ts'): Promise<void> {
    const script = (await bundle(program, 'browser')).replaceAll('</script', '<\\/script');
    const body = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Test</title><div id="app"></div><script>${script}</script>`;
    await this.tab.route(this.#url, (route) => route.fulfill({ contentType: 'text/html', body }));
    await this.tab.goto(this.#url);
    // Requests that are looked at are slower.
    await this.tab.unroute(this.#url);
  }

  /** Waits until the page has the server's state. */
  async synced(patienceMs?: number): Promise<void> {
    await until(
      async () => `a page to be synced; it was told ${JSON.stringify(await this.page.told())}`,
      () => this.page.synced(),
      patienceMs,
    );
  }

  /** Waits until everything is saved. */
  async saved(patienceMs?: number): Promise<void> {
    await until(
      async () => `a page to be saved; it was told ${JSON.stringify(await this.page.told())}`,
      async () => (await this.page.state()) === 'saved' && (await this.page.synced()),
      patienceMs,
    );
  }
}
