// Measures the shipped gated networks against their plain twins on whole test sets, one image at a time on one thread;
// checks the claims about them, and writes docs/reproduction.md. Fetch the data first (scripts/fetch-data.mjs). If the
// peers are installed (cd bench && npm ci --ignore-scripts), onnxruntime-node is measured too.
//   npm run reproduce                          all data sets; exits with 1 if a claim fails
//   npm run reproduce -- mnist                 only this one; the page is not written
//   npm run reproduce -- mnist --limit 200     a trial: nothing is claimed for a part of the test set
//   npm run reproduce -- --page                only the page, from bench/reproduction.json
//   npm run reproduce -- --protocol DIR        the networks finished by research/protocol.py in DIR; writes docs/protocol.md. First
//                                              register the policies (bench/register.mjs) and, unless with --part validation, commit them
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { processIo, startProgress } from '../dist/cli/io.js';
import { reproduceProtocol } from './protocol/reproduce.mjs';
import { SETS } from './protocol/runs.mjs';
import { claimsOf } from './reproduction/claims.mjs';
import { measure } from './reproduction/measure.mjs';
import { REPRODUCED } from './reproduction/networks.mjs';
import { mainTable, writePage } from './reproduction/page.mjs';

const BENCH = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(BENCH, 'reproduction.json');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: join(BENCH, '..', '.cache', 'data') },
    limit: { type: 'string' },
    page: { type: 'boolean', default: false },
    protocol: { type: 'string' },
    part: { type: 'string', default: 'test' },
    cards: { type: 'string' },
  },
});
const limit = values.limit === undefined ? undefined : Number(values.limit);
const known = values.protocol === undefined ? REPRODUCED : Object.keys(SETS);
const unknown = positionals.find((name) => !known.includes(name));
if (unknown !== undefined || (limit !== undefined && !(Number.isInteger(limit) && limit > 0))) {
  console.error(
    `Usage: npm run reproduce -- [${known.join('|')} ...] [--data DIR] [--limit N] [--page] ` +
      '[--protocol DIR [--part test|validation] [--cards DIR]]',
  );
  process.exit(2);
}

/** `progress(title, total)` starts a bar, `progress.advance(count)` advances it. */
function bars() {
  let bar = { stop() {} };
  const progress = (title, total) => {
    bar.stop();
    bar = startProgress(processIo(), total, title, true);
  };
  progress.advance = (count) => {
    for (let i = 0; i < count; i++) bar.advance();
  };
  progress.stop = () => bar.stop();
  return progress;
}

async function measureAll(names) {
  const reports = [];
  for (const name of names) {
    const progress = bars();
    reports.push(await measure(name, { data: values.data, limit, progress }));
    progress.stop();
  }
  return { cpu: cpus()[0]?.model.trim() ?? 'unknown CPU', reports };
}

if (values.protocol !== undefined) {
  const { protocol: folder, data, part, cards, page } = values;
  const progress = bars();
  const failed = await reproduceProtocol({
    folder,
    names: positionals,
    data,
    part,
    limit,
    cards,
    page,
    progress,
  });
  progress.stop();
  process.exit(failed === 0 ? 0 : 1);
}

const whole = positionals.length === 0 && limit === undefined;
const results = values.page
  ? JSON.parse(readFileSync(RESULTS, 'utf8'))
  : await measureAll(positionals.length > 0 ? positionals : REPRODUCED);
if (whole && !values.page) writeFileSync(RESULTS, `${JSON.stringify(results, null, 1)}\n`);

const { cpu, reports } = results;
console.log(mainTable(reports).replaceAll('**', ''));
let failed = 0;
for (const report of reports.filter(({ complete }) => complete)) {
  for (const { claim, measured, holds } of claimsOf(report)) {
    console.log(`${holds ? 'holds' : 'FAILS'}  ${report.dataset}: ${claim}: ${measured}`);
    if (!holds) failed++;
  }
}
if (whole) {
  const [{ isa, peer }] = reports;
  const beside = peer ? `; beside it onnxruntime-node ${peer}` : '';
  await writePage(
    join(BENCH, '..', 'docs'),
    reports,
    `Measured on: ${cpu}, \`isa: '${isa}'\`, one thread, batch 1${beside}.`,
  );
}
process.exitCode = failed === 0 ? 0 : 1;
