import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import type { RunContext, RunEvent } from 'lib/skip/observer.js';
import { COLOR_SCHEMES, expectReadable, expectSelfContained, testChromium } from '../helpers/browser.js';
import { DIST, describeBuilt } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { uniform } from '../helpers/random.js';
import { runContext, runEvent, withDecisions } from '../helpers/run-event.js';

const ITEMS = 10_000;
const BLOCKS = 15;
const folder = folderOf({});
const trace = join(folder, 'trace.ndjson');
const page = join(folder, 'report.html');
afterAll(removeFolders);

/** An item with random scores that lean to skipping; a few are guarded, and a few leave at an exit. */
function randomRun(context: RunContext, random: () => number, seed: number): RunEvent {
  const scores = Array.from({ length: BLOCKS }, (_, i) => random() - 0.1 * (i % 5));
  const event = runEvent(context, [scores], seed);
  const kind = random();
  if (kind > 0.1) return event;
  const [item] = event.trace.items;
  const blocks = item!.blocks.map((block, i) =>
    kind < 0.05
      ? { ...block, ran: true, reason: 'guard' as const }
      : i < 9
        ? block
        : { ...block, ran: false, score: null, threshold: null, reason: 'exit' as const },
  );
  const exits =
    kind < 0.05 ? [] : [{ after: 'block8', score: Math.fround(0.9), threshold: 0.8, taken: true }];
  return withDecisions({ ...event, trace: { ...event.trace, items: [{ ...item!, blocks, exits }] } });
}

async function writeTrace(): Promise<void> {
  const random = uniform(6);
  const context = { ...runContext(BLOCKS), guards: ['night & day'] };
  const log = auditLog({ path: trace, labels: ['night & day', '<script>alert(1)</script>'] });
  log.onAttach({ runFull: async () => ({}), runAgain: async () => ({}), setFullDepth: () => {} });
  for (let i = 0; i < ITEMS; i++) {
    log.onRun(randomRun(context, random, i));
    if (i % 100 === 0) await log.timeFull({});
  }
  log.recordEnergy({
    items: 500,
    cpuSeconds: { full: 0.002, skip: 0.0015 },
    joules: { full: 0.04, skip: 0.025 },
  });
  await log.onRelease();
}

// The charts' library has ES modules only, which Node runs and Jest does not.
describeBuilt(`the report of ${ITEMS} items`, () => {
  beforeAll(async () => {
    await writeTrace();
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(DIST, 'cli/main.js'), 'audit', trace, '-o', page],
      { encoding: 'utf8' },
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  test('is one page below 2 MB, without scripts and without the network', () => {
    expect(statSync(page).size).toBeLessThan(2e6);
    expectSelfContained(readFileSync(page, 'utf8'));
  });

  test('has every section, and its charts', () => {
    const html = readFileSync(page, 'utf8');
    const titles = [...html.matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title]) => title);
    expect(titles).toEqual([
      'Over time',
      'Energy',
      'Skip rate by block',
      'Gate scores',
      'By class and block',
      'Depth',
      'Most frequent paths',
      'One class against another',
      'Guards, exits and trips',
      'Examples',
      'Provenance',
    ]);
    const charts = [...html.matchAll(/<svg role="img" aria-label="(.*?)"/g)].map(([, label]) => label);
    expect(charts).toEqual([
      'layers bypassed over time',
      'latency saved over time',
      'median ms an item over time',
      'skip rate by block',
      'distribution of gate scores',
      'skip rate by answer and block',
      'distribution of depth',
      'confidence against depth',
      expect.stringContaining('skip rates of'),
    ]);
    expect(html).toContain(
      '<td>energy of the processor, mJ per item</td><td class="n">40.00</td><td class="n">25.00</td><td class="n">37.5 %</td>',
    );
    expect(html).toContain('every line continues the one before it');
    expect(html).toContain('The policy guards the answers night &amp; day.');
    expect(html).toContain('night &amp; day');
  });

  test('tells the same numbers as the trace', () => {
    const { stdout } = spawnSync(process.execPath, [join(DIST, 'cli/main.js'), 'audit', trace, '--json'], {
      encoding: 'utf8',
    });
    const summary = JSON.parse(stdout);
    const records = readFileSync(trace, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type === 'item');
    expect(summary.items).toBe(records.length);
    const paths = new Set(records.map(({ ran }) => ran));
    expect(summary.distinctPaths).toBe(paths.size);
    const guarded = records.filter(({ reasons }) => reasons.includes('v')).length;
    const left = records.filter(({ reasons }) => reasons.includes('x')).length;
    expect(summary.reasons).toMatchObject({ v: guarded, x: left });
    const html = readFileSync(page, 'utf8');
    for (const count of [guarded, left]) expect(html).toContain(`<td class="n">${count}</td>`);
    const skipped = records.filter(({ ran }) => ran[3] === '0').length / records.length;
    expect(summary.blocks[3].skipRate).toBeCloseTo(skipped, 12);
    expect(html).toContain(`${(100 * skipped).toFixed(0)} %`);
  });

  testChromium.each(COLOR_SCHEMES)('can be read in headless Chromium, %s', (scheme) =>
    expectReadable(page, scheme, 3200),
  );
});
