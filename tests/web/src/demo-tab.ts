// A tab with a page of the demo, used as a person uses it.

import type { BrowserContext, Locator, Page as Tab } from 'playwright-core';
import type { Door } from './server.ts';
import { PATIENCE_MS, until } from './wait.ts';

/** Which page. */
export interface DemoOptions {
  readonly document: string;
  /** The name that others see. */
  readonly name: string;
  /** Rich text instead of text. */
  readonly rich?: boolean;
  readonly color?: string;
}

/** One tab with a document. */
export class DemoTab {
  readonly tab: Tab;

  constructor(tab: Tab) {
    this.tab = tab;
  }

  /** Opens a document, and waits until it can be edited. */
  static async open(context: BrowserContext, door: Door, options: DemoOptions): Promise<DemoTab> {
    const tab = await context.newPage();
    await tab.addInitScript(
      ({ name, color }) => {
        localStorage.setItem('cowrite.name', name);
        if (color !== undefined) localStorage.setItem('cowrite.color', color);
      },
      { name: options.name, color: options.color },
    );
    await tab.goto(`${door.http}/${options.rich === true ? 'r' : 'd'}/${options.document}`);
    const demo = new DemoTab(tab);
    await demo.ready();
    return demo;
  }

  /** Where one types. */
  get editor(): Locator {
    return this.tab.getByTestId('editor');
  }

  /** Waits until the document is there and can be edited. */
  async ready(): Promise<void> {
    await this.tab.waitForSelector(
      '[data-testid=connection][data-status=connected] ~ [data-testid=save-state]',
      { state: 'attached', timeout: PATIENCE_MS },
    );
    await this.tab.waitForSelector('[data-testid=editor][contenteditable=true]', {
      timeout: PATIENCE_MS,
    });
  }

  /** Types with the keyboard, where the cursor is. */
  async type(text: string, delayMs = 0): Promise<void> {
    await this.tab.keyboard.type(text, { delay: delayMs });
  }

  /** What the editor shows of a text document that fits into the window. */
  async text(): Promise<string> {
    return this.editor.evaluate((editor) =>
      [...editor.querySelectorAll('.cm-line')]
        .map((line) => {
          const copy = line.cloneNode(true) as Element;
          for (const hint of copy.querySelectorAll('.cm-placeholder')) hint.remove();
          return (copy.textContent ?? '').replaceAll('\u200b', '').replaceAll('\u2060', '');
        })
        .join('\n'),
    );
  }

  /** What the page says about saving. */
  async saveState(): Promise<string | null> {
    return this.tab.getByTestId('save-state').getAttribute('data-state');
  }

  /** What the page says about the connection. */
  async status(): Promise<string | null> {
    return this.tab.getByTestId('connection').getAttribute('data-status');
  }

  /** Waits until the page says so. */
  async says(state: string, patienceMs?: number): Promise<void> {
    await until(
      async () => `the page to say ${state}; it says ${await this.saveState()}`,
      async () => (await this.saveState()) === state,
      patienceMs,
    );
  }

  /** The names at the carets of others in the text. */
  async carets(): Promise<string[]> {
    return this.tab.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>('[data-testid=editor] .caret .caret-flag')]
        .map((flag) => flag.dataset['name'] ?? '')
        .sort(),
    );
  }

  /** The names of all who are in the document. */
  async people(): Promise<string[]> {
    return this.tab.evaluate(() =>
      [...document.querySelectorAll('[data-testid=people] > [data-client-id]')]
        .map((one) => one.getAttribute('title') ?? '')
        .sort(),
    );
  }

  /** Waits until these carets of others are shown, and no more. */
  async showsCarets(names: readonly string[], patienceMs?: number): Promise<void> {
    const wanted = JSON.stringify([...names].sort());
    await until(
      async () => `carets of ${wanted}; there are ${JSON.stringify(await this.carets())}`,
      async () => JSON.stringify(await this.carets()) === wanted,
      patienceMs,
    );
  }

  /** Waits until these people are shown, and no more. */
  async showsPeople(names: readonly string[], patienceMs?: number): Promise<void> {
    const wanted = JSON.stringify([...names].sort());
    await until(
      async () => `people ${wanted}; there are ${JSON.stringify(await this.people())}`,
      async () => JSON.stringify(await this.people()) === wanted,
      patienceMs,
    );
  }
}

/** Waits until all tabs show the same text, and `accepted` takes it. Returns it. */
export async function sameText(
  tabs: readonly DemoTab[],
  accepted: (text: string) => boolean,
): Promise<string> {
  let texts: string[] = [];
  await until(
    () => `all tabs to show the same whole text; they show ${JSON.stringify(texts)}`,
    async () => {
      texts = await Promise.all(tabs.map((tab) => tab.text()));
      return texts.every((text) => text === texts[0]) && accepted(texts[0] ?? '');
    },
  );
  return texts[0] ?? '';
}
