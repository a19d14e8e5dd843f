// Measures the networks that research/protocol.py has finished in DIR, evaluates every claim, and writes the sections of their
// data sets in docs/lab/protocol.md. First register the policies (register.mjs) and, unless with --part validation, commit them.
//   node research/measure/reproduce.mjs DIR [DATASET...] [--data DIR] [--cards DIR]     exits with 1 if a claim fails
//   node research/measure/reproduce.mjs DIR --part validation    a trial that doesn't read the test set and claims nothing
//   node research/measure/reproduce.mjs DIR --limit 200          a trial on a part of the test set
//   node research/measure/reproduce.mjs --page                   only the page, from research/measure/protocol.json
// With --ladders it measures the ladders alone, beside the plain networks of the same seeds, and writes sections of their own.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bars } from '../../bench/harness.mjs';
import { ROOT, SETS } from '../../bench/networks.mjs';
import { claimsOf, claimsOfLadders } from './claims.mjs';
import { isMade, laddersOf } from './ladders.mjs';
import { measureRuns } from './measure.mjs';
import { claimsTable, writeLadders, writePage } from './page.mjs';
import { publishedClaims, readPublished } from './published.mjs';
import {
  CARDS,
  checkLadders,
  checkPolicies,
  checkRegistered,
  LIMITS,
  ladderCard,
  readRuns,
} from './runs.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: join(ROOT, '.cache', 'data') },
    limit: { type: 'string' },
    page: { type: 'boolean', default: false },
    part: { type: 'string', default: 'test' },
    cards: { type: 'string', default: CARDS },
    ladders: { type: 'boolean', default: false },
  },
});
const { page, part, ladders: alone } = values;
const RESULTS = join(ROOT, 'research', 'measure', alone ? 'protocol-ladders.json' : 'protocol.json');
const limit = values.limit === undefined ? undefined : Number(values.limit);
const [folder, ...names] = positionals;
if ((!folder && !page) || !names.every((name) => Object.hasOwn(SETS, name)) || Number.isNaN(limit)) {
  console.error(
    `Usage: node research/measure/reproduce.mjs DIR [${Object.keys(SETS).join('|')} ...] [--data DIR] ` +
      '[--part test|validation] [--cards DIR] [--limit N] [--page] [--ladders]',
  );
  process.exit(2);
}

async function measureAll(progress) {
  const all = readRuns(folder);
  const chosen = all.filter(({ dataset }) => names.length === 0 || names.includes(dataset));
  const finished = chosen.filter(({ result }) => result !== undefined);
  // Check all of them before the first test image of any set is read.
  for (const run of alone ? [] : finished.filter(({ role }) => role === 'gated')) {
    if (part === 'test') checkRegistered(run, values.cards);
    else checkPolicies(run);
  }
  const datasets = new Set(finished.map((run) => run.dataset));
  const ladders = [...datasets]
    .flatMap((dataset) => laddersOf(finished.filter((run) => run.dataset === dataset)))
    .filter(isMade);
  for (const name of part === 'test' ? new Set(ladders.map(ladderCard)) : [])
    checkLadders(
      ladders.filter((ladder) => ladderCard(ladder) === name),
      values.cards,
    );
  const reports = [];
  const measured = alone ? new Set(ladders.map(({ dataset }) => dataset)) : datasets;
  for (const dataset of measured) {
    const own = finished.filter((run) => run.dataset === dataset && !(alone && run.role === 'gated'));
    const above = ladders.filter((ladder) => ladder.dataset === dataset);
    reports.push(
      await measureRuns(dataset, own, above, { folder, data: values.data, part, limit, progress }),
    );
  }
  progress.stop();
  const missing = alone ? [] : chosen.filter(({ result }) => result === undefined).map(({ name }) => name);
  return { cpu: cpus()[0]?.model.trim() ?? 'unknown CPU', reports, missing };
}

const claimed = part === 'test' && limit === undefined;
const results = page ? JSON.parse(readFileSync(RESULTS, 'utf8')) : await measureAll(bars());
const { reports, missing } = results;
const claims = reports.flatMap((report) => (alone ? claimsOfLadders(report) : claimsOf(report, LIMITS)));
const published = !alone && names.length === 0 ? publishedClaims(readPublished()) : [];
if (!claimed) console.log('A trial on a part of the images: nothing is claimed of it.');
console.log(claimsTable([...claims, ...published]).replaceAll('**', ''));
if (missing.length > 0) console.log(`not trained yet: ${missing.join(', ')}`);
if (claimed) {
  if (!page) writeFileSync(RESULTS, `${JSON.stringify(results)}\n`);
  const docs = join(ROOT, 'docs', 'lab');
  if (alone) writeLadders(docs, { ...results, claims });
  else await writePage(docs, { ...results, claims, published });
  const failed = [...claims, ...published].filter(({ measured, holds }) => measured !== undefined && !holds);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
