// Certifies policies on the validation part for the gated networks that research/protocol.py has finished, and writes model
// cards that register them by hash and date. reproduce.mjs reads the test set only if the cards are
// committed.
//   node research/measure/register.mjs DIR [--cards DIR] [--again]
//   node research/measure/register.mjs DIR --ladders     only the ladders
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SETS } from '../../bench/networks.mjs';
import { isMade, laddersOf, makeLadder } from './ladders.mjs';
import {
  CARDS,
  cardName,
  isText,
  LIMITS,
  ladderCard,
  limitOfLadders,
  policyFile,
  readRuns,
  registrationOf,
  registrationOfLadders,
  validationPath,
} from './runs.mjs';

const MAIN = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..', 'dist', 'cli', 'main.js');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cards: { type: 'string', default: CARDS },
    again: { type: 'boolean', default: false },
    ladders: { type: 'boolean', default: false },
  },
});
if (positionals.length !== 1) {
  console.error('Usage: node research/measure/register.mjs DIR [--cards DIR] [--again] [--ladders]');
  process.exit(2);
}
const [folder] = positionals;

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

function certify(run) {
  const data = validationPath(folder, run.dataset);
  for (const limit of LIMITS[run.dataset]) {
    const output = policyFile(run, limit);
    if (existsSync(output) && !values.again) continue;
    const limits = ['--labels', '--max-disagreement', String(limit), '--state', join(run.folder, 'state')];
    execFileSync(process.execPath, [MAIN, 'calibrate', run.folder, '--data', data, ...limits, '-o', output], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
}

function shapeOf({ dataset, depths, widths }) {
  const { title } = SETS[dataset];
  if (isText(dataset)) {
    const layers = depths.reduce((sum, depth) => sum + depth, 0);
    return `Encoder for ${title} with ${layers} layers of width ${widths[0]}, with an early exit behind each layer but the last`;
  }
  return `ResNet for ${title} with stages of ${depths.join(', ')} basic blocks and ${widths.join(', ')} channels, with an early exit
behind each block from the end of the first stage on`;
}

function card(run) {
  const { dataset, seed, result } = run;
  const first = result.pretraining ? `${result.pretraining} epochs of blanked words, then ` : '';
  const rows = LIMITS[dataset].map((limit) => {
    const { promise, expected } = JSON.parse(readFileSync(policyFile(run, limit), 'utf8'));
    const { events, gained, items } = promise;
    return `| ${percent(limit, 2)} | ${events} of ${items} | ${gained ?? 'not counted'} | ${percent(expected.multiplyAddsSkipped)} |`;
  });
  return `# ${dataset}, gated, seed ${seed}

${shapeOf(run)}; trained by \`research/protocol.py\` in ${first}${result.epochs} epochs.
${(result.multiplyAdds / 1e6).toFixed(1)} M multiply-adds in full${isText(dataset) ? ' for 64 tokens' : ''}. Accuracy on the validation part, in full: ${percent(result.validation.at(-1), 2)}.

## Registration

Registered on ${new Date().toISOString().slice(0, 10)}, before it read a test item. SHA-256 of the files:

${registrationOf(run)}

Thresholds are certified at 95 % on ${SETS[dataset].validation ?? 'the validation part'}, for the fall of the accuracy (\`calibrate --labels\`):

| limit | right answers lost on the items that certify | gained | multiply-adds saved there |
| ---: | ---: | ---: | ---: |
${rows.join('\n')}
`;
}

function cardOfLadders(ladders) {
  const [{ dataset, seed }] = ladders;
  const rows = ladders.map(({ name, folder }) => {
    const { promise, expected } = JSON.parse(readFileSync(join(folder, 'policy.json'), 'utf8'));
    return `| ${name} | ${promise.events} of ${promise.items} | ${promise.gained} | ${percent(expected.multiplyAddsSkipped)} |`;
  });
  return `# ${dataset}, ladders, seed ${seed}

Made by \`speedup --labels\` on ${SETS[dataset].validation ?? 'the validation part'}, certified at 95 % for a fall of the accuracy by at most ${percent(limitOfLadders(dataset), 2)} below
the last network's. Registered on ${new Date().toISOString().slice(0, 10)}, before they read a test item. SHA-256 of the policies, which name their networks:

${registrationOfLadders(ladders)}

| ladder | right answers lost on the items that certify | gained | multiply-adds saved there |
| --- | ---: | ---: | ---: |
${rows.join('\n')}
`;
}

/** Writes a card unless it registers the same files already: then it keeps its date. */
function writeCard(name, registration, text) {
  const file = join(values.cards, name);
  if (existsSync(file) && readFileSync(file, 'utf8').includes(registration)) return;
  writeFileSync(file, text);
  console.log(`wrote ${file}; commit it before the test set is read`);
}

const finished = readRuns(folder).filter(({ result }) => result);
const gated = values.ladders ? [] : finished.filter(({ role }) => role === 'gated');
mkdirSync(values.cards, { recursive: true });
for (const run of gated) {
  certify(run);
  writeCard(cardName(run), registrationOf(run), card(run));
}
const ladders = [...new Set(finished.map(({ dataset }) => dataset))].flatMap((dataset) =>
  laddersOf(finished.filter((run) => run.dataset === dataset)),
);
for (const ladder of ladders) await makeLadder(ladder, folder);
for (const name of new Set(ladders.map(ladderCard))) {
  const own = ladders.filter((ladder) => ladderCard(ladder) === name && isMade(ladder));
  if (own.length > 0) writeCard(name, registrationOfLadders(own), cardOfLadders(own));
}
console.log(`${gated.length} gated networks and ${ladders.filter(isMade).length} ladders are registered`);
