// Measures the networks that research/protocol.py has finished in DIR, evaluates every claim, and writes the sections of their
// data sets in docs/lab/protocol.md. First register the policies (register.mjs) and, unless with --part validation, commit them.
//   node research/measure/reproduce.mjs DIR [DATASET...] [--data DIR] [--cards DIR]     exits with 1 if a claim fails
//   node research/measure/reproduce.mjs DIR --part validation    a trial that doesn't read the test set and claims nothing
//   node research/measure/reproduce.mjs DIR --limit 200          a trial on a part of the test set
//   node research/measure/reproduce.mjs --page                   only the page, from research/measure/protocol.json
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bars } from '../../bench/harness.mjs';
import { ROOT, SETS } from '../../bench/networks.mjs';
import { claimsOf } from './claims.mjs';
import { isMade, laddersOf } from './ladders.mjs';
import { measureRuns } from './measure.mjs';
import { claimsTable, writePage } from './page.mjs';
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

const RESULTS = join(ROOT, 'research', 'measure', 'protocol.json');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: join(ROOT, '.cache', 'data') },
    limit: { type: 'string' },
    page: { type: 'boolean', default: false },
    part: { type: 'string', default: 'test' },
    cards: { type: 'string', default: CARDS },
  },
});
const { page, part } = values;
const limit = values.limit === undefined ? undefined : Number(values.limit);
const [folder, ...names] = positionals;
if ((!folder && !page) || !names.every((name) => Object.hasOwn(SETS, name)) || Number.isNaN(limit)) {
  console.error(
    `Usage: node research/measure/reproduce.mjs DIR [${Object.keys(SETS).join('|')} ...] [--data DIR] ` +
      '[--part test|validation] [--cards DIR] [--limit N] [--page]',
  );
  process.exit(2);
}

async function measureAll(progress) {
  const all = readRuns(folder);
  const chosen = all.filter(({ dataset }) => names.length === 0 || names.includes(dataset));
  const finished = chosen.filter(({ result }) => result !== undefined);
  // Check all of them before the first test image of any set is read.
  for (const run of finished.filter(({ role }) => role === 'gated')) {
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
  for (const dataset of datasets) {
    const own = finished.filter((run) => run.dataset === dataset);
    const above = ladders.filter((ladder) => ladder.dataset === dataset);
    reports.push(
      await measureRuns(dataset, own, above, { folder, data: values.data, part, limit, progress }),
    );
  }
  progress.stop();
  const missing = chosen.filter(({ result }) => result === undefined).map(({ name }) => name);
  return { cpu: cpus()[0]?.model.trim() ?? 'unknown CPU', reports, missing };
}

const claimed = part === 'test' && limit === undefined;
const results = page ? JSON.parse(readFileSync(RESULTS, 'utf8')) : await measureAll(bars());
const { reports, missing } = results;
const claims = reports.flatMap((report) => claimsOf(report, LIMITS));
const published = names.length === 0 ? publishedClaims(readPublished()) : [];
if (!claimed) console.log('A trial on a part of the images: nothing is claimed of it.');
console.log(claimsTable([...claims, ...published]).replaceAll('**', ''));
if (missing.length > 0) console.log(`not trained yet: ${missing.join(', ')}`);
if (claimed) {
  if (!page) writeFileSync(RESULTS, `${JSON.stringify(results)}\n`);
  await writePage(join(ROOT, 'docs', 'lab'), { ...results, claims, published });
  const failed = [...claims, ...published].filter(({ measured, holds }) => measured !== undefined && !holds);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
