// Certifies policies on the validation part for the gated networks that research/protocol.py has finished, and writes model
// cards that register them by hash and date. reproduce.mjs reads the test set only if the cards are
// committed.
//   node research/measure/register.mjs DIR [--cards DIR] [--again]
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SETS } from '../../bench/networks.mjs';
import {
  CARDS,
  cardName,
  isText,
  LIMITS,
  policyFile,
  readRuns,
  registrationOf,
  validationPath,
} from './runs.mjs';

const MAIN = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..', 'dist', 'cli', 'main.js');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { cards: { type: 'string', default: CARDS }, again: { type: 'boolean', default: false } },
});
if (positionals.length !== 1) {
  console.error('Usage: node research/measure/register.mjs DIR [--cards DIR] [--again]');
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

const gated = readRuns(folder).filter(({ role, result }) => role === 'gated' && result);
mkdirSync(values.cards, { recursive: true });
for (const run of gated) {
  certify(run);
  const file = join(values.cards, cardName(run));
  // A card that already registers the same files keeps its date.
  if (existsSync(file) && readFileSync(file, 'utf8').includes(registrationOf(run))) continue;
  writeFileSync(file, card(run));
  console.log(`wrote ${file}; commit it before the test set is read`);
}
console.log(`${gated.length} gated networks are registered`);
