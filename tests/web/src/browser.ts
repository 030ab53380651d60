// Chromium with pages that hold participants.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import {
  type BrowserContext,
  type BrowserServer,
  chromium,
  type Page as Tab,
} from 'playwright-core';
import { bundle } from './bundle.ts';
import type { Page } from './page.ts';
import { type Options, type Remote, remote } from './participant.ts';
import { ROOT } from './process.ts';

const USUAL = '/usr/bin/chromium';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--ignore-certificate-errors',
];

declare const page: Page;

/** A browser with a fresh profile. */
export class Browser {
  readonly #server: BrowserServer;
  readonly #context: BrowserContext;
  readonly #pages: HttpServer;
  readonly #console: string[] = [];

  private constructor(server: BrowserServer, context: BrowserContext, pages: HttpServer) {
    this.#server = server;
    this.#context = context;
    this.#pages = pages;
  }

  /** Starts it. */
  static async launch(): Promise<Browser> {
    const executablePath = process.env['CHROMIUM_BIN'] ?? USUAL;
    if (!existsSync(executablePath)) {
      throw new Error(`${executablePath} is not there: install chromium, or set CHROMIUM_BIN`);
    }
    const pages = await servePages();
    // The profile is a new directory, which is removed at the end.
    const server = await chromium.launchServer({ executablePath, args: FLAGS, headless: true });
    const browser = await chromium.connect(server.wsEndpoint());
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    return new Browser(server, context, pages);
  }

  /** Where the pages come from: for `transport.allowed_origins`. */
  get origin(): string {
    return `http://127.0.0.1:${(this.#pages.address() as AddressInfo).port}`;
  }

  /** A new tab, empty of participants. */
  async tab(): Promise<BrowserTab> {
    const tab = await this.#context.newPage();
    tab.on('console', (message) => this.#console.push(`${message.type()}: ${message.text()}`));
    tab.on('pageerror', (error) => this.#console.push(`error: ${error.message}`));
    await tab.goto(this.origin);
    return new BrowserTab(tab);
  }

  /** Keeps what there is to see of a failed test, in tests/web/artifacts. */
  async keep(test: string): Promise<void> {
    const directory = join(ROOT, 'tests/web/artifacts');
    mkdirSync(directory, { recursive: true });
    const name = join(directory, test.replaceAll(/[^a-z0-9]+/gi, '-'));
    writeFileSync(`${name}.log`, `${this.#console.join('\n')}\n`);
    for (const [index, tab] of this.#context.pages().entries()) {
      await tab.screenshot({ path: `${name}-${index}.png`, timeout: 5_000 }).catch(() => {});
    }
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.#context.close().catch(() => {});
    await this.#server.close();
    this.#pages.closeAllConnections();
    await new Promise((done) => this.#pages.close(done));
  }
}

/** One tab. */
export class BrowserTab {
  readonly #tab: Tab;

  constructor(tab: Tab) {
    this.#tab = tab;
  }

  /** Opens a participant in the tab. */
  async open(options: Options): Promise<Remote> {
    const index = await this.#tab.evaluate((options) => page.open(options), options);
    return remote((method, args) =>
      this.#tab.evaluate(([index, method, args]) => page.call(index, method, args), [
        index,
        method,
        args,
      ] as const),
    );
  }

  /** Closes it as a person does: pages are not asked. */
  async close(): Promise<void> {
    await this.#tab.close({ runBeforeUnload: false });
  }

  /** Its process dies, as under the system's lack of memory. */
  async crash(): Promise<void> {
    const crashed = new Promise((done) => this.#tab.once('crash', done));
    const session = await this.#tab.context().newCDPSession(this.#tab);
    // No answer comes from a page that is gone.
    session.send('Page.crash').catch(() => {});
    await crashed;
  }
}

async function servePages(): Promise<HttpServer> {
  const script = await bundle('page.ts', 'browser');
  const server = createServer((request, response) => {
    const isScript = request.url === '/page.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(
      isScript
        ? script
        : '<!doctype html><title>Participants</title><script src="page.js"></script>',
    );
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return server;
}
