import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import fastify from 'fastify';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import { createServer, type RunningServer } from 'residual-skip-server';
import { LivePage } from '../../server/src/http/live.js';
import type { Finished } from '../../server/src/inference/messages.js';
import { FULL } from '../../server/src/models/settings.js';
import { CHROMIUM_FLAGS, COLOR_SCHEMES, chromiumPath, testChromium } from '../helpers/browser.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { promising } from '../helpers/policies.js';

const MODEL = 'mnist-resnet20-gates';
const digits = [3, 5, 7].map((digit) => readFileSync(resolve(`demo/digit-${digit}.png`)));
const policy = {
  ...promising(0.01, { default: 'gate' }),
  settings: [promising(0.05, { default: 'skip' })],
};

let server: RunningServer;
let browser: Browser | undefined;
let loading = true;
let load: Promise<unknown>;
beforeAll(async () => {
  if (!chromiumPath) return;
  server = await createServer({
    folders: [resolve('models', MODEL)],
    ...{ port: 0, grpcPort: null, threads: 1, maxItems: 1, targetQueue: 1, shadow: 0 },
    policies: [resolve(folderOf({ 'policy.json': JSON.stringify(policy) }), 'policy.json')],
  });
  const client = new Client(server.url);
  const caller = async (at: number) => {
    for (let i = at; loading; i++) {
      await client.classify(MODEL, [digits[i % 3]!]);
      await new Promise((done) => setTimeout(done, 10));
    }
  };
  load = Promise.all(Array.from({ length: 8 }, (_, at) => caller(at)));
  browser = await chromium.launch({ executablePath: chromiumPath, args: CHROMIUM_FLAGS });
});
afterAll(async () => {
  loading = false;
  await load;
  await browser?.close();
  await server?.close();
  removeFolders();
});

/** Ratio of the luminances of two CSS colours, as WCAG 2 defines it. */
function contrast(one: string, other: string): number {
  const [a, b] = [one, other].map((color) => {
    const [r, g, b] = /rgb\((\d+), (\d+), (\d+)\)/
      .exec(color)!
      .slice(1)
      .map((part) => {
        const value = Number(part) / 255;
        return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      });
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b! + 0.05;
  }) as [number, number];
  return Math.max(a, b) / Math.min(a, b);
}

/** Share of the pixels of each chart that are drawn on. Code for the page is text: these tests know no DOM. */
const inkOf = (page: Page) =>
  page.evaluate<number[]>(`[...document.querySelectorAll('.u-wrap canvas')].map((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, i) => i % 4 === 3 && value > 0).length / (canvas.width * canvas.height);
  })`);

const styleOf = (page: Page, selector: string, property: string) =>
  page.evaluate<string>(`getComputedStyle(document.querySelector('${selector}')).${property}`);

describe.each(COLOR_SCHEMES)('the live page while a load runs, %s', (colorScheme) => {
  let context: BrowserContext;
  let page: Page;
  const errors: string[] = [];
  const asked: string[] = [];
  beforeAll(async () => {
    if (!browser) return;
    context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 900 } });
    page = await context.newPage();
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    page.on('pageerror', (error) => errors.push(error.message));
    page.on('request', (request) => asked.push(new URL(request.url()).origin));
    await page.goto(server.url);
    await page.waitForSelector(`article[data-model="${MODEL}"]`);
    await page.waitForSelector('#changes li time');
    await page.waitForTimeout(3000);
  });
  afterAll(() => context?.close());

  testChromium(
    'shows rates, latency, the setting with its promise, blocks, answers and changes',
    async () => {
      const facts = Object.fromEntries(
        await page.$$eval('.facts > div', (parts) =>
          parts.map((part) => [part.querySelector('dt')!.textContent, part.querySelector('dd')!.textContent]),
        ),
      ) as Record<string, string>;
      expect(Number(facts['items per second'])).toBeGreaterThan(0);
      expect(facts.p99).toMatch(/^[\d.]+ ms$/);
      expect(['full', '0.01', '0.05']).toContain(facts.setting);
      expect(facts.promise).toMatch(/^at most [015]\.0 % of answers change$/);
      expect(await page.$$eval('.blocks span', (bars) => bars.length)).toBeGreaterThan(3);
      const answers = await page.$$eval('.recent li', (rows) =>
        rows.map((row) => [row.querySelector('.path')!.getAttribute('title'), row.textContent]),
      );
      expect(answers).toHaveLength(8);
      for (const [path, answer] of answers) {
        expect(path).toMatch(/^[#.]{9} /);
        expect(answer).toMatch(/^\d$/);
      }
      await page.check('#images');
      await page.waitForFunction("document.querySelector('.recent canvas')?.width === 28");
      const drawn = `[...document.querySelector('.recent canvas').getContext('2d').getImageData(0, 0, 28, 28).data]`;
      expect(new Set(await page.evaluate<number[]>(drawn)).size).toBeGreaterThan(10);
      expect(await page.textContent('#changes')).toMatch(/full to 0\.0[15]/);
      const places = await page.$$eval('.chart', (charts) =>
        charts.map((chart) => [chart.clientWidth, chart.querySelector('canvas')!.clientWidth] as const),
      );
      for (const [room, drawn] of places) expect(drawn).toBeLessThanOrEqual(room);
      const ink = await inkOf(page);
      expect(ink).toHaveLength(3);
      for (const share of ink) expect(share).toBeGreaterThan(0.005);
    },
  );

  testChromium('asks nobody but its server and logs no error', () => {
    expect(new Set(asked)).toEqual(new Set([server.url]));
    expect(errors).toEqual([]);
  });

  testChromium('is readable, and fits a small screen', async () => {
    const ground = await styleOf(page, 'article', 'backgroundColor');
    for (const text of ['h2', 'dd', 'dt', 'h3', '.recent b', '#changes li']) {
      const color = await styleOf(page, text, 'color');
      expect({ text, readable: contrast(color, ground) >= 4.5 }).toEqual({ text, readable: true });
    }
    const shots = process.env.PAGE_SHOTS;
    if (shots) await page.screenshot({ path: resolve(shots, `${colorScheme}.png`), fullPage: true });
    await page.setViewportSize({ width: 390, height: 800 });
    await page.waitForTimeout(700);
    const width = await page.evaluate<number>('document.documentElement.scrollWidth');
    if (shots) await page.screenshot({ path: resolve(shots, `${colorScheme}-small.png`), fullPage: true });
    expect(width).toBeLessThanOrEqual(390);
  });
});

testChromium('charts take the colours of a theme that changes', async () => {
  const context = await browser!.newContext({ colorScheme: 'light' });
  const page = await context.newPage();
  await page.goto(server.url);
  await page.waitForSelector('.u-wrap canvas');
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.waitForFunction("document.querySelectorAll('.u-wrap canvas').length === 3");
  expect(await styleOf(page, 'body', 'backgroundColor')).toBe('rgb(20, 23, 27)');
  await context.close();
});

test('64 pages may watch at a time', async () => {
  const watching = await Promise.all(Array.from({ length: 64 }, () => fetch(`${server.url}/events`)));
  for (const { status } of watching) expect(status).toBe(200);
  const refused = await fetch(`${server.url}/events`);
  expect([refused.status, await refused.json()]).toEqual([
    429,
    { error: expect.stringContaining('64 pages'), code: 'BUSY' },
  ]);
  await watching[0]!.body!.cancel();
  const again = async () => {
    const { status, body } = await fetch(`${server.url}/events`);
    await body!.cancel();
    return status;
  };
  while ((await again()) !== 200) await new Promise((done) => setTimeout(done, 10));
  for (const { body } of watching.slice(1)) await body!.cancel();
});

test('thumbnails are made while somebody watches who wants them; the last minutes are kept', async () => {
  const model = { name: 'net', version: '1', setting: FULL, settings: [FULL], boldest: 0, classifier: null };
  const live = new LivePage(
    { loaded: () => [model] } as never,
    () => ({ queue: { length: 0, running: 0 } }) as never,
  );
  const app = fastify({ forceCloseConnections: true });
  await live.addRoutes(app);
  live.start();
  const image = new Tensor('float32', Float32Array.of(0, 1, 0, 1), [1, 1, 2, 2]);
  const looked = jest.fn(() => ({ image }));
  const finish = () => {
    const answer = {
      model,
      items: [{ blocks: [], multiplyAddsSkipped: 0 }],
      queueMs: 1,
      callMs: 1,
      outputs: {},
    };
    live.finished(Object.defineProperty(answer, 'feeds', { get: looked }) as unknown as Finished);
  };
  finish();
  expect(looked).not.toHaveBeenCalled();
  const url = await app.listen({ port: 0 });
  const watch = async (query: string) => {
    const { body } = await fetch(`${url}/events${query}`);
    const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
    const until = async (what: RegExp) => {
      let seen = '';
      while (!what.test(seen)) seen = (await reader.read()).value!;
      return seen;
    };
    return { reader, until };
  };
  const plain = await watch('');
  // What happened before anybody watched.
  expect(await plain.until(/^event: history/)).toMatch(/^event: history\ndata: \[/);
  finish();
  expect(await plain.until(/"path"/)).toContain('"image":null');
  expect(looked).not.toHaveBeenCalled();
  const pictures = await watch('?images=1');
  const history = JSON.parse((await pictures.until(/^event: history/)).split('data: ')[1]!) as {
    models: { itemsPerSecond: number }[];
  }[];
  // Two answers, in the same half second or in two.
  expect(history.reduce((sum, { models }) => sum + models[0]!.itemsPerSecond, 0)).toBe(4);
  // The last answer was another page's.
  await new Promise((done) => setTimeout(done, 100));
  finish();
  const seen = await pictures.until(/"width":2/);
  expect(seen).toContain(`"data":"${Buffer.of(0, 255, 0, 255).toString('base64')}"`);
  expect(await plain.until(/"path":"","image":null\}\]/)).not.toContain('"width"');
  await Promise.all([plain.reader.cancel(), pictures.reader.cancel()]);
  live.stop();
  await app.close();
});
