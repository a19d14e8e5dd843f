import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Calibration, Example, SettingResult } from 'lib/calibrate/report/result.js';
import type { Latency } from 'lib/skip/promise.js';
import { COLOR_SCHEMES, expectReadable, expectSelfContained, testChromium } from '../../helpers/browser.js';
import { DIST, describeBuilt } from '../../helpers/dist.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const latency = (policy: number): Latency => ({
  ...{ items: 50, isa: 'avx2', threads: 1 },
  ...{ fullMs: { p50: 0.5, mean: 0.52 }, policyMs: { p50: policy, mean: policy } },
});

/** Setting `i` of a search whose risk and saving both rise. */
function setting(i: number): SettingResult {
  return {
    ...{
      limit: 0.01,
      items: 3000,
      events: 6 * i,
      risk: 0.002 * i,
      upperBound: 0.002 * i + 0.003,
    },
    ...{ pValue: 0.01 * i, worstPValue: 0.0123 * i, groups: [] },
    ...{
      multiplyAddsSkipped: 0.06 * i,
      blocksSkipped: 0.05 * i,
      exits: { block2: 0.2 },
      skips: { block1: 0.1 },
    },
    latency: latency(0.5 - 0.03 * i),
  };
}

const example = (sha256: string, answer: string, fullAnswer: string): Example => ({
  ...{ sha256, answer, fullAnswer, exit: 'block2', ran: '1010', multiplyAddsSkipped: 0.5 },
});

const tested = { limit: 0.05, items: 1500, events: 7, risk: 0.0047, pValue: 0.004, upperBound: 0.0088 };
const result: Calibration = {
  policy: {
    model: { sha256: 'a'.repeat(64) },
    blocks: {},
    guards: [{ labels: ['night & day'], action: 'verify', margin: 0.1 }],
    promise: {
      ...{ metric: 'disagreement', confidence: 0.95, ...tested, limit: 0.01, items: 3000 },
      groups: [
        { kind: 'class', name: '<script>alert(1)</script>', promised: true, ...tested },
        { kind: 'class', name: 'night & day', promised: true, ...tested },
        { kind: 'group', name: 'rare', promised: false, ...tested, items: 12 },
      ],
      data: { sha256: 'b'.repeat(64), seed: 1, fit: 1800, order: 1200, certify: 3000 },
    },
    expected: {
      multiplyAddsSkipped: 0.24,
      blocksSkipped: 0.2,
      latencyReduction: 0.24,
      latency: latency(0.38),
    },
  },
  settings: Array.from({ length: 8 }, (_, i) => setting(i)),
  bolder: [],
  chosen: 4,
  contributions: [
    { kind: 'exit', block: 'block1', rate: 0.1, multiplyAddsSkipped: 0.04 },
    { kind: 'exit', block: 'block2', rate: 0.2, multiplyAddsSkipped: 0.2 },
  ],
  rungs: [
    { name: 'block1', answered: 0.1, events: 2, work: 0.6 },
    { name: 'block2', answered: 0.2, events: 5, work: 0.8 },
    { name: null, answered: 0.7, events: 0, work: 1.1 },
  ],
  classes: [
    { label: '<script>alert(1)</script>', items: 1500, events: 7, risk: 0.0047, multiplyAddsSkipped: 0.31 },
    { label: 'night & day', items: 1500, events: 2, risk: 0.0013, multiplyAddsSkipped: 0.17 },
  ],
  examples: {
    most: [example('1', 'night & day', 'night & day'), example('2', 'night & day', 'cat')],
    least: [example('3', 'cat', 'cat')],
  },
  certifiedOn: [],
  duplicates: 3,
  resumed: null,
};

/** In a process of its own: the charts' library has ES modules only, which Node runs and Jest does not. */
function render(calibration: Calibration): string {
  const module = pathToFileURL(join(DIST, 'calibrate/report/report.js')).href;
  const script = `
    import { readFileSync } from 'node:fs';
    import { renderCalibration } from ${JSON.stringify(module)};
    const calibration = JSON.parse(readFileSync(0, 'utf8'));
    process.stdout.write(await renderCalibration(calibration, { model: 'some model' }));`;
  const input = JSON.stringify(calibration);
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    ...{ input, encoding: 'utf8' },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

describeBuilt('the report of a calibration', () => {
  const page = join(folderOf({}), 'report.html');
  let html = '';
  beforeAll(async () => {
    const thumbnail = `data:image/png;base64,${(await png(8, 8, [200, 30, 30])).toString('base64')}`;
    const { most, least } = result.examples;
    const examples = {
      most: [{ ...most[0]!, thumbnail }, most[1]!],
      least: [{ ...least[0]!, thumbnail }],
    };
    html = render({ ...result, examples });
    writeFileSync(page, html);
  });

  test('is one page without scripts and without the network', () => {
    expectSelfContained(readFileSync(page, 'utf8'));
  });

  test('has every section, and its charts', () => {
    const titles = [...html.matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title]) => title);
    expect(titles).toEqual([
      'Risk against cost',
      'What each exit saves',
      'Settings in the order of testing',
      'Promises for groups',
      'By class',
      'Examples',
      'Provenance',
    ]);
    const charts = [...html.matchAll(/<svg role="img" aria-label="(.*?)"/g)].map(([, label]) => label);
    expect(charts).toEqual([
      'risk against median ms of an item',
      'risk against multiply-adds spent',
      'multiply-adds saved by each exit',
    ]);
  });

  test('says what is promised, and of whom it promises nothing', () => {
    expect(html).toContain(
      'some model: at most 1.00 % of the answers change, and at most 5.00 % in each of 2 groups, with 95 % confidence.',
    );
    expect(html).toMatch(/rare<\/td><td>group<\/td>.*nothing: too few items/);
    expect(html).toContain('night &amp; day within 0.1');
    expect(html).toContain('1,800 fit, 1,200 order, 3,000 certify; 3 copies left out');
  });

  test('marks the chosen setting among those tested, in the table and in each curve', () => {
    const rows = [...html.matchAll(/<tr><td>(chosen|)<\/td><td class="n">(\d+)<\/td>/g)].map(
      ([, mark, events]) => [mark, Number(events)],
    );
    expect(rows).toEqual(result.settings.map(({ events }, i) => [i === 4 ? 'chosen' : '', events]));
    const points = [...html.matchAll(/<g[^>]*symbol[^>]*role-mark[^>]*>(.*?)<\/g>/gs)].map(
      ([, marks]) => marks!,
    );
    expect(points).toHaveLength(2);
    for (const marks of points) {
      expect(marks.match(/<path/g)).toHaveLength(result.settings.length);
      expect(marks.match(/fill="#f59e0b"/g)).toHaveLength(1);
    }
  });

  test('shows the images that are at hand, and where skipping changed the answer', () => {
    expect(html.match(/<img /g)).toHaveLength(2);
    expect(html).toContain('night &amp; day, by block2, 50 % skipped (in full: cat)');
  });

  test('without a setting that holds it says so, and draws no curve', () => {
    const nothing = {
      ...result,
      settings: [],
      chosen: -1,
      contributions: [],
      certifiedOn: [],
      examples: { most: [], least: [] },
    };
    const bare = render(nothing);
    expect(bare).toContain('No setting could be certified: the policy skips nothing.');
    expect(bare).not.toContain('<svg');
  });

  testChromium.each(COLOR_SCHEMES)('can be read in headless Chromium, %s', (scheme) =>
    expectReadable(page, scheme, 2000),
  );
});
