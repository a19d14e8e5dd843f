import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { folderOf } from './files.js';

export const chromiumPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((path) =>
  existsSync(path),
);
if (!chromiumPath) console.log('there is no Chromium: how pages look is not checked');

/** `test` if Chromium is installed. */
export const testChromium = chromiumPath ? test : test.skip;

/** Without a sandbox, which root can't use, and without network requests. */
export const CHROMIUM_FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

const BACKGROUNDS = {
  light: { setting: 1, color: [255, 255, 255] },
  dark: { setting: 0, color: [18, 18, 18] },
} as const;
export const COLOR_SCHEMES = ['light', 'dark'] as const;

/** Expects that the page has no scripts and loads nothing from the network. */
export function expectSelfContained(html: string): void {
  expect(html).not.toMatch(/<(script|link|iframe|object|embed|base)\b/i);
  expect(html).not.toMatch(/\b(src|href|action|poster|srcset)\s*=(?!\s*["']?(data:|#))/i);
  expect(html).not.toMatch(/url\((?!\s*["']?(#|data:))|@import/i);
  expect(html).not.toMatch(/\son\w+\s*=/i);
}

/** Expects visible text or charts in every fifth of the first `height` pixels of the HTML file `page`. */
export async function expectReadable(
  page: string,
  scheme: (typeof COLOR_SCHEMES)[number],
  height: number,
): Promise<void> {
  const { setting, color } = BACKGROUNDS[scheme];
  const shot = join(folderOf({}), 'shot.png');
  const { status, stderr } = spawnSync(
    chromiumPath!,
    [
      ...['--headless', ...CHROMIUM_FLAGS, '--hide-scrollbars'],
      ...['--host-resolver-rules=MAP * ~NOTFOUND', `--user-data-dir=${folderOf({})}`],
      ...[`--window-size=1060,${height}`, `--blink-settings=preferredColorScheme=${setting}`],
      ...[`--screenshot=${shot}`, `file://${page}`],
    ],
    { encoding: 'utf8', timeout: 50_000 },
  );
  expect({ status, written: existsSync(shot), stderr }).toMatchObject({ status: 0, written: true });
  const { data, info } = await sharp(shot).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  expect([info.width, info.height]).toEqual([1060, height]);
  expect([...data.subarray(0, 3)]).toEqual(color);
  const rows = height / 5;
  for (let part = 0; part < 5; part++) {
    let contrasting = 0;
    for (let i = 3 * 1060 * rows * part; i < 3 * 1060 * rows * (part + 1); i += 3) {
      const distance = Math.max(...color.map((value, c) => Math.abs(data[i + c]! - value)));
      if (distance > 100) contrasting++;
    }
    expect(contrasting / (1060 * rows)).toBeGreaterThan(0.005);
  }
}
