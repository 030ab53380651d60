// Takes the picture of two people in one document: `node scripts/screenshots.mjs URL FILE.png`.
// URL is a running server that serves this page and does not have the document yet, such as one
// with --ephemeral. CHROMIUM names the browser, /usr/bin/chromium by default.
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';

import { chromium } from 'playwright-core';

const [url, file] = process.argv.slice(2);
if (!url || !file) {
  console.error('usage: node scripts/screenshots.mjs URL FILE.png');
  process.exit(2);
}

const WINDOW = { width: 740, height: 650 };
const SCALE = 2;

const PEOPLE = [
  { name: 'Ada Lovelace', color: '#0f766e', colorScheme: 'light' },
  { name: 'Grace Hopper', color: '#c2410c', colorScheme: 'dark' },
];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

/** Somebody with a window of their own, in the document at `path`. */
async function join({ name, color, colorScheme }, path) {
  const context = await browser.newContext({
    viewport: WINDOW,
    deviceScaleFactor: SCALE,
    colorScheme,
  });
  await context.addInitScript(
    (self) => {
      localStorage.setItem('cowrite.name', self.name);
      localStorage.setItem('cowrite.color', self.color);
    },
    { name, color },
  );
  const page = await context.newPage();
  await page.goto(new URL(path, url).href);
  await page.waitForSelector('[data-testid=connection][data-status=connected]');
  return page;
}

const saved = (page) => page.waitForSelector('[data-testid=save-state][data-state=saved]');
const text = (page, words) => page.getByTestId('editor').getByText(words).waitFor();

async function type(page, words) {
  await page.keyboard.type(words, { delay: 5 });
}

try {
  const path = '/r/rich/lisbon-in-march';
  const [ada, grace] = [await join(PEOPLE[0], path), await join(PEOPLE[1], path)];
  await ada.getByTestId('editor').click();
  await type(ada, '# Lisbon, in March\n');
  await type(ada, 'Four days, one backpack each. **Trains are booked**, the rest is open.\n');
  await type(ada, '## Days\n');
  await type(ada, '- Thursday: arrive, walk up to the castle\n');
  await type(ada, 'Friday: tiles museum, then the river\n');
  await type(ada, 'Saturday: \n\n');
  await type(ada, '> Everybody adds what they do not want to miss.');
  await text(grace, 'do not want to miss');

  // Grace goes on with Saturday while Ada writes about the end.
  await grace.getByText('Saturday:').click();
  await grace.keyboard.press('End');
  await type(grace, 'the market, and pastéis while they are warm');
  await ada.keyboard.press('Enter');
  await ada.keyboard.press('Enter');
  await type(ada, 'Sunday is for the train home');
  await text(ada, 'while they are warm');
  await text(grace, 'the train home');
  await Promise.all([saved(ada), saved(grace)]);

  const shots = [await ada.screenshot(), await grace.screenshot()];
  const frame = await browser.newPage({
    viewport: { width: 2 * WINDOW.width + 120, height: WINDOW.height + 96 },
    deviceScaleFactor: SCALE,
  });
  const images = shots.map((png) => `<img src="data:image/png;base64,${png.toString('base64')}">`);
  await frame.setContent(`<style>
    body { margin: 0; height: 100vh; display: flex; gap: 28px; align-items: center; justify-content: center;
      background: linear-gradient(120deg, #d9ebe6, #f4e6db) }
    img { width: ${WINDOW.width}px; height: ${WINDOW.height}px; border-radius: 14px;
      box-shadow: 0 0 0 1px #0000001f, 0 24px 48px -18px #00000059 }
  </style>${images.join('')}`);
  writeFileSync(file, await frame.screenshot());
  console.log(`${file}: ${readFileSync(file).length} bytes`);
} finally {
  await browser.close();
}
