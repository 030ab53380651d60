// How fast it is in Chromium: keystrokes, pushes and joins. Prints tables; see README.md.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { DemoTab } from '../src/demo-tab.ts';
import { OwnTab } from '../src/own-tab.ts';
import { path, PATHS } from '../src/paths.ts';
import { Child, executable, plainEnvironment, ROOT } from '../src/process.ts';
import { binary } from '../src/server.ts';
import { pause, until } from '../src/wait.ts';
import { test } from '../src/world.ts';

const KEYSTROKES = 600;
const PER_SECOND = 20;
const PUSH_MS = 5_000;
const JOINS = 7;
const TRACE = 'automerge-paper.json.gz';

/** A value that `part` of all values do not exceed. */
function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN;
}

const ms = (value: number): string => value.toFixed(1);

/** Times, on the clock that all pages of a machine share. */
type Times = { readonly times: (number | undefined)[] };

/** Notes when each keystroke is made in a tab, before the editor has seen it. */
function noteKeystrokes(tab: DemoTab): Promise<void> {
  return tab.tab.evaluate(() => {
    const times: number[] = [];
    addEventListener(
      'beforeinput',
      () => times.push(performance.timeOrigin + performance.now()),
      true,
    );
    Object.assign(globalThis, { times });
  });
}

/** Notes when a tab shows each number of characters for the first time. */
function noteShown(tab: DemoTab): Promise<void> {
  return tab.editor.evaluate((editor) => {
    const times: (number | undefined)[] = [];
    let shown = 0;
    new MutationObserver(() => {
      const now = performance.timeOrigin + performance.now();
      const length = editor.querySelector('.cm-placeholder')
        ? 0
        : (editor.textContent ?? '').length;
      for (; shown < length; shown += 1) times[shown] = now;
    }).observe(editor, { subtree: true, childList: true, characterData: true });
    Object.assign(globalThis, { times });
  });
}

const timesOf = (tab: DemoTab): Promise<(number | undefined)[]> =>
  tab.tab.evaluate(() => (globalThis as unknown as Times).times);

test('keystrokes', async ({ world }) => {
  const rows: Record<string, string>[] = [];
  for (const [name, open] of PATHS) {
    const { door } = await open(world);
    const browser = await world.browser();
    const document = 'latency';
    const writer = await DemoTab.open(browser.context, door, { document, name: 'A' });
    const reader = await DemoTab.open(await browser.person(), door, { document, name: 'B' });
    await noteKeystrokes(writer);
    await noteShown(reader);
    await pause(1_000);
    const began = performance.now();
    for (let key = 0; key < KEYSTROKES; key += 1) {
      const due = began + (key * 1000) / PER_SECOND;
      await pause(Math.max(0, due - performance.now()));
      await writer.tab.keyboard.press(key % 8 === 7 ? 'Space' : 'abcdefg'.charAt(key % 8));
    }
    const seconds = (performance.now() - began) / 1000;
    await until(
      'all keystrokes to be shown',
      async () => (await timesOf(reader)).length >= KEYSTROKES,
    );
    const [made, shown] = [await timesOf(writer), await timesOf(reader)];
    expect(made.length).toBe(KEYSTROKES);
    const latencies = made.map((at, key) => (shown[key] ?? NaN) - (at ?? NaN));
    rows.push({
      path: name,
      'keystrokes/s': (KEYSTROKES / seconds).toFixed(1),
      'p50 ms': ms(quantile(latencies, 0.5)),
      'p90 ms': ms(quantile(latencies, 0.9)),
      'p99 ms': ms(quantile(latencies, 0.99)),
      'max ms': ms(Math.max(...latencies)),
    });
    await browser.close();
  }
  console.table(rows);
});

test('pushes', async ({ world }) => {
  const rows: Record<string, string>[] = [];
  for (const name of ['directly over HTTP/1.1', 'through Envoy over HTTP/1.1']) {
    const { door } = await path(name)(world);
    const browser = await world.browser();
    for (const perSecond of [20, 200, 2_000]) {
      const tab = await OwnTab.open(browser.context, door, {
        document: `pushes/${perSecond}`,
        persistence: false,
      });
      await tab.tab.evaluate(() => performance.setResourceTimingBufferSize(100_000));
      const count = await tab.page.hammer(perSecond, PUSH_MS);
      await tab.saved();
      const pushes = await tab.tab.evaluate(() =>
        performance
          .getEntriesByType('resource')
          .filter((entry) => entry.name.endsWith('/Publish'))
          .map((entry) => entry.duration),
      );
      rows.push({
        path: name,
        'edits/s': (count / (PUSH_MS / 1000)).toFixed(0),
        'pushes/s': (pushes.length / (PUSH_MS / 1000)).toFixed(0),
        'push p50 ms': ms(quantile(pushes, 0.5)),
        'push p99 ms': ms(quantile(pushes, 0.99)),
      });
      await tab.tab.close();
    }
  }
  console.table(rows);
});

test('joins of a large document', async ({ world }) => {
  const trace = join(process.env['COWRITE_TRACES'] ?? join(ROOT, '../shared/traces'), TRACE);
  if (!existsSync(trace)) {
    console.log(`${trace} is not there: no joins`);
    return;
  }
  const load = executable(
    'COWRITE_LOAD_BIN',
    join(binary(), '../cowrite-load'),
    'run `cargo build --release -p cowrite-load`',
  );
  const rows: Record<string, string>[] = [];
  const document = 'large';
  for (const name of ['directly over HTTP/1.1', 'through Envoy over HTTP/2 with TLS']) {
    const { server, door } = await path(name)(world);
    const args = ['replay', '--trace', trace, '--server', server.http, '--document', document];
    const replay = new Child(load, args, plainEnvironment());
    replay.onOutput(() => {});
    expect(await replay.ended(300_000), replay.log).toBe(0);
    const browser = await world.browser();

    const joins: number[] = [];
    for (let run = 0; run < JOINS; run += 1) {
      const context = await browser.person();
      const tab = await OwnTab.empty(context, door);
      await tab.page.open({ document });
      await tab.synced(60_000);
      const told = await tab.page.told();
      const at = (value: unknown): number => told.find((one) => one.value === value)?.at ?? NaN;
      joins.push(at(true) - at('connecting'));
      await context.close();
    }
    rows.push({
      path: name,
      what: 'connect to synced, our client',
      'p50 ms': ms(quantile(joins, 0.5)),
      'max ms': ms(Math.max(...joins)),
    });

    const pages: number[] = [];
    for (let run = 0; run < JOINS; run += 1) {
      const context = await browser.person();
      const tab = await context.newPage();
      await tab.addInitScript(() => {
        const look = (): void => {
          const editor = globalThis.document.querySelector('[data-testid=editor]');
          const length = editor?.textContent?.length ?? 0;
          const editable = editor?.getAttribute('contenteditable') === 'true';
          // More than the hint that an empty document shows.
          if (editable && length > 500) Object.assign(globalThis, { shown: performance.now() });
          else setTimeout(look, 1);
        };
        look();
      });
      await tab.goto(`${door.http}/d/${document}`);
      await tab.waitForFunction(() => 'shown' in globalThis, undefined, { timeout: 60_000 });
      pages.push(await tab.evaluate(() => (globalThis as unknown as { shown: number }).shown));
      await context.close();
    }
    rows.push({
      path: name,
      what: 'navigation to text that can be edited, demo',
      'p50 ms': ms(quantile(pages, 0.5)),
      'max ms': ms(Math.max(...pages)),
    });
  }
  console.table(rows);
});
