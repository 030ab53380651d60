// Chromium with pages that hold participants.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import {
  type Browser as Chromium,
  type BrowserContext,
  type BrowserContextOptions,
  type BrowserServer,
  chromium,
  type Page as Tab,
} from 'playwright-core';
import { bundle } from './bundle.ts';
import type { Page } from './page.ts';
import { type Options, type Remote, remote } from './participant.ts';
import { ROOT } from './process.ts';

const USUAL = '/usr/bin/chromium';

/** How Chromium is started. */
export const FLAGS = [
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

/** The program. */
export function chromiumFile(): string {
  const file = process.env['CHROMIUM_BIN'] ?? USUAL;
  if (!existsSync(file)) {
    throw new Error(`${file} is not there: install chromium, or set CHROMIUM_BIN`);
  }
  return file;
}

/** A browser with a fresh profile. */
export class Browser {
  readonly #server: BrowserServer;
  readonly #chromium: Chromium;
  readonly #context: BrowserContext;
  readonly #pages: HttpServer;
  readonly #console: string[] = [];

  private constructor(
    server: BrowserServer,
    browser: Chromium,
    context: BrowserContext,
    pages: HttpServer,
  ) {
    this.#server = server;
    this.#chromium = browser;
    this.#context = context;
    this.#pages = pages;
    this.#watch(context);
  }

  /** Starts it. */
  static async launch(): Promise<Browser> {
    const executablePath = chromiumFile();
    const pages = await servePages();
    // The profile is a new directory, which is removed at the end.
    const server = await chromium.launchServer({ executablePath, args: FLAGS, headless: true });
    const browser = await chromium.connect(server.wsEndpoint());
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    return new Browser(server, browser, context, pages);
  }

  #watch(context: BrowserContext): void {
    context.on('console', (message) => this.#console.push(`${message.type()}: ${message.text()}`));
    context.on('weberror', (error) => this.#console.push(`error: ${error.error().message}`));
  }

  /** Where the tabs of one person live: with storage and connections in common. */
  get context(): BrowserContext {
    return this.#context;
  }

  /** Another person, who shares neither storage nor connections with the first. */
  async person(options: BrowserContextOptions = {}): Promise<BrowserContext> {
    const context = await this.#chromium.newContext({ ignoreHTTPSErrors: true, ...options });
    this.#watch(context);
    return context;
  }

  /** What the pages wrote to their consoles, and what they threw. */
  get console(): readonly string[] {
    return this.#console;
  }

  /** All its processes stop, but their sockets stay open, as in a laptop that went to sleep. */
  freeze(): void {
    this.#signal('SIGSTOP');
  }

  /** They go on. */
  thaw(): void {
    this.#signal('SIGCONT');
  }

  #signal(name: NodeJS.Signals): void {
    const { pid } = this.#server.process();
    if (pid === undefined) throw new Error('the browser has ended');
    for (const one of [pid, ...descendants(pid)]) process.kill(one, name);
  }

  /** Where the pages come from: for `transport.allowed_origins`. */
  get origin(): string {
    return `http://127.0.0.1:${(this.#pages.address() as AddressInfo).port}`;
  }

  /** A new tab, empty of participants. */
  async tab(): Promise<BrowserTab> {
    const tab = await this.#context.newPage();
    await tab.goto(this.origin);
    return new BrowserTab(tab);
  }

  /** Keeps what there is to see of a failed test, in tests/web/artifacts. */
  async keep(test: string): Promise<void> {
    const directory = join(ROOT, 'tests/web/artifacts');
    mkdirSync(directory, { recursive: true });
    const name = join(directory, test.replaceAll(/[^a-z0-9]+/gi, '-'));
    writeFileSync(`${name}.log`, `${this.#console.join('\n')}\n`);
    const tabs = this.#chromium.contexts().flatMap((context) => context.pages());
    for (const [index, tab] of tabs.entries()) {
      await tab.screenshot({ path: `${name}-${index}.png`, timeout: 5_000 }).catch(() => {});
    }
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.#chromium.close().catch(() => {});
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
  crash(): Promise<void> {
    return crash(this.#tab);
  }
}

/** The process of a tab dies, as under the system's lack of memory. */
export async function crash(tab: Tab): Promise<void> {
  const crashed = new Promise((done) => tab.once('crash', done));
  const session = await tab.context().newCDPSession(tab);
  // No answer comes from a page that is gone.
  session.send('Page.crash').catch(() => {});
  await crashed;
}

/** The children of a process, and theirs. */
function descendants(parent: number): number[] {
  const parents = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      // After the name of the program, which is in parentheses: the state, then the parent.
      const ppid = Number(
        readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[1],
      );
      parents.set(ppid, [...(parents.get(ppid) ?? []), Number(name)]);
    } catch {
      // It has ended meanwhile.
    }
  }
  const below = (pid: number): number[] =>
    (parents.get(pid) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(parent);
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
