// `npm run reproduce -- --protocol DIR`: measures the networks that research/protocol.py has finished in DIR, evaluates every
// claim, and writes the sections of these data sets in docs/protocol.md.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { claimsOf } from './claims.mjs';
import { measureRuns } from './measure.mjs';
import { claimsTable, writePage } from './page.mjs';
import { publishedClaims, readPublished } from './published.mjs';
import { CARDS, checkPolicies, checkRegistered, LIMITS, readRuns } from './runs.mjs';

const BENCH = dirname(dirname(fileURLToPath(import.meta.url)));
const RESULTS = join(BENCH, 'protocol.json');

/**
 * @param options `part`: 'test', or 'validation' for a trial; `limit`: a number of images, with which nothing is stored
 * @returns the number of claims that fail
 */
export async function reproduceProtocol({ folder, names, data, part, limit, cards = CARDS, page, progress }) {
  const claimed = part === 'test' && limit === undefined;
  const results = page
    ? JSON.parse(readFileSync(RESULTS, 'utf8'))
    : await measureAll({ folder, names, data, part, limit, cards, progress });
  const { reports, missing } = results;
  const claims = reports.flatMap((report) => claimsOf(report, LIMITS));
  const published = names.length === 0 ? publishedClaims(readPublished()) : [];
  if (!claimed) console.log('A try on a part of the images: nothing is claimed of it.');
  console.log(claimsTable([...claims, ...published]).replaceAll('**', ''));
  if (missing.length > 0) console.log(`not trained yet: ${missing.join(', ')}`);
  if (claimed) {
    if (!page) writeFileSync(RESULTS, `${JSON.stringify(results)}\n`);
    await writePage(join(BENCH, '..', 'docs'), { ...results, claims, published });
  }
  return claimed
    ? [...claims, ...published].filter(({ measured, holds }) => measured !== undefined && !holds).length
    : 0;
}

async function measureAll({ folder, names, ...options }) {
  const all = readRuns(folder);
  const chosen = all.filter(({ dataset }) => names.length === 0 || names.includes(dataset));
  const finished = chosen.filter(({ result }) => result !== undefined);
  // Check all of them before the first test image of any set is read.
  const gated = finished.filter(({ role }) => role === 'gated');
  for (const run of gated) {
    if (options.part === 'test') checkRegistered(run, options.cards);
    else checkPolicies(run);
  }
  const reports = [];
  for (const dataset of new Set(finished.map((run) => run.dataset))) {
    const own = finished.filter((run) => run.dataset === dataset);
    reports.push(await measureRuns(dataset, own, { folder, ...options }));
  }
  const missing = chosen.filter(({ result }) => result === undefined).map(({ name }) => name);
  return { cpu: cpus()[0]?.model.trim() ?? 'unknown CPU', reports, missing };
}
