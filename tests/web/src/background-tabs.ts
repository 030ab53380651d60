// A Chromium in which a tab behind another one is hidden and slowed down, as it is for people.
// Chromium under test keeps all tabs awake otherwise.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, type BrowserContext, chromium } from 'playwright-core';
import { chromiumFile, FLAGS } from './browser.ts';
import { within } from './wait.ts';

/** The browser. */
export class BackgroundTabs {
  readonly #process: ChildProcess;
  readonly #profile: string;
  readonly #browser: Browser;

  private constructor(process: ChildProcess, profile: string, browser: Browser) {
    this.#process = process;
    this.#profile = profile;
    this.#browser = browser;
  }

  /** Starts it. */
  static async launch(): Promise<BackgroundTabs> {
    const profile = mkdtempSync(join(tmpdir(), 'cowrite-profile-'));
    const flags = [...FLAGS, '--remote-debugging-port=0', `--user-data-dir=${profile}`];
    const process = spawn(chromiumFile(), [...flags, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    const address = new Promise<string>((done) => {
      process.stderr?.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        const found = /listening on (ws:\S+)/.exec(said)?.[1];
        if (found !== undefined) done(found);
      });
    });
    const endpoint = await within('Chromium to start', address);
    // Without the defaults no tab pretends to have the focus.
    const browser = await chromium.connectOverCDP(endpoint, { noDefaults: true });
    return new BackgroundTabs(process, profile, browser);
  }

  /**
   * Timers that a page sets while it is hidden come after a minute at the earliest, as Chromium has
   * it after some minutes. For pages that are opened from now on.
   */
  async slowTimers(): Promise<void> {
    await this.context.addInitScript((minute) => {
      const { setTimeout, setInterval } = globalThis;
      const slow = (ms: number | undefined): number =>
        document.visibilityState === 'hidden' ? Math.max(ms ?? 0, minute) : (ms ?? 0);
      Object.assign(globalThis, {
        setTimeout: (run: TimerHandler, ms?: number, ...args: unknown[]) =>
          setTimeout(run, slow(ms), ...args),
        setInterval: (run: TimerHandler, ms?: number, ...args: unknown[]) =>
          setInterval(run, slow(ms), ...args),
      });
    }, 60_000);
  }

  /** The tabs, which are all in one window. */
  get context(): BrowserContext {
    const [context] = this.#browser.contexts();
    if (context === undefined) throw new Error('the browser has no window');
    return context;
  }

  /** Ends it. */
  async close(): Promise<void> {
    const ended = new Promise((done) => this.#process.once('exit', done));
    const session = await this.#browser.newBrowserCDPSession();
    // It answers or is gone before it answers.
    session.send('Browser.close').catch(() => {});
    await within('the end of Chromium', ended);
    await this.#browser.close().catch(() => {});
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
