// The rich-text page: two people make one structure.

import { describe, expect } from 'vitest';
import { DemoTab } from '../src/demo-tab.ts';
import { path } from '../src/paths.ts';
import { until } from '../src/wait.ts';
import { test } from '../src/world.ts';

/** The structure of what a tab shows: elements and text, without carets. */
async function structure(tab: DemoTab): Promise<string> {
  return tab.editor.evaluate((editor) => {
    const write = (node: Node): string => {
      if (node instanceof Text) return node.data.replaceAll(/[\u200b\u2060]/g, '');
      if (!(node instanceof Element) || node.classList.contains('caret')) return '';
      const inside = [...node.childNodes].map(write).join('');
      const tag = node.tagName.toLowerCase();
      if (tag === 'br' || tag === 'img') return '';
      return tag === 'span' ? inside : `<${tag}>${inside}</${tag}>`;
    };
    return [...editor.childNodes].map(write).join('');
  });
}

async function press(tab: DemoTab, button: string): Promise<void> {
  await tab.tab.getByRole('button', { name: button }).first().click();
}

async function bothHave(tabs: readonly DemoTab[], wanted: string): Promise<void> {
  let seen: string[] = [];
  await until(
    () => `both tabs to have ${wanted}; they have ${seen.join(' and ')}`,
    async () => {
      seen = await Promise.all(tabs.map((tab) => structure(tab)));
      return seen.every((one) => one === wanted);
    },
  );
}

describe.each(['directly over HTTP/1.1', 'through Envoy over HTTP/2 with TLS'])('%s', (name) => {
  test('bold text and lists of two people are the same in both tabs', async ({ world }) => {
    const { door } = await path(name)(world);
    const browser = await world.browser();
    const document = 'rich/lists';
    const ada = await DemoTab.open(browser.context, door, { document, name: 'Ada', rich: true });
    const bob = await DemoTab.open(await browser.person(), door, {
      document,
      name: 'Bob',
      rich: true,
    });
    // At once after the page is there: whoever opens a document can type.
    await ada.type('Plain and ');
    await press(ada, 'Bold');
    await ada.type('bold');
    await press(ada, 'Bold');
    await ada.tab.keyboard.press('Enter');
    await bothHave([ada, bob], '<p>Plain and <strong>bold</strong></p><p></p>');

    await bob.tab.keyboard.press('Control+End');
    await press(bob, 'Bullet list');
    await bob.type('one');
    await bob.tab.keyboard.press('Enter');
    await bob.type('two');
    const lists = '<ul><li><p>one</p></li><li><p>two</p></li></ul>';
    await bothHave([ada, bob], `<p>Plain and <strong>bold</strong></p>${lists}`);
    await ada.showsCarets(['Bob']);

    // Both at once, in different places.
    await ada.tab.keyboard.press('Control+Home');
    await Promise.all([ada.type('Ada. ', 20), bob.type(' and a half', 20)]);
    const after = lists.replace('two', 'two and a half');
    await bothHave([ada, bob], `<p>Ada. Plain and <strong>bold</strong></p>${after}`);
    await ada.says('saved');
    await bob.says('saved');

    // Whoever comes later, and whoever loads the page again, has it too.
    await ada.tab.reload();
    await ada.ready();
    await bothHave([ada, bob], `<p>Ada. Plain and <strong>bold</strong></p>${after}`);
    expect(browser.console.filter((line) => /^(error|warning)/.test(line))).toEqual([]);
  });
});
