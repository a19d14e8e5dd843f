// The networks trained by research/protocol.py, and the registrations of their policies.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SETS } from '../../bench/networks.mjs';

export const CARDS = resolve(dirname(fileURLToPath(import.meta.url)), '..', 'cards');

/** What certifies policies: a data set that research/protocol.py writes into its folder. */
export const validationPath = (folder, dataset) =>
  join(folder, 'data', `${dataset}-validation`, SETS[dataset].validation ?? '');

/**
 * How far a policy may lower the accuracy, certified at 95 % on the validation part. Claims are about the first
 * one; the others are further points of the curve. Imagenette and SST-2 have too few validation items for lower limits.
 */
export const LIMITS = {
  cifar10: [0.0025, 0.005, 0.01, 0.02, 0.04],
  'fashion-mnist': [0.005, 0.0025, 0.01, 0.02, 0.04],
  imagenette: [0.005, 0.01, 0.02, 0.04],
  mnist: [0.01, 0.02, 0.04],
  sst2: [0.01, 0.005, 0.02, 0.04],
};

/** Ladders have the lowest: the accuracy may fall by 0.2 points in what is claimed of them. */
export const limitOfLadders = (dataset) => Math.min(...LIMITS[dataset]);

/** The networks of texts are encoders, whose depths count layers. */
export const isText = (dataset) => SETS[dataset].test.endsWith('.tsv');

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));
const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/**
 * All planned runs in a folder of protocol.py, but for networks with gates, which `npm run reproduce` measures; `result` is
 * missing until a run is finished.
 */
export function readRuns(folder) {
  const file = join(folder, 'plan.json');
  if (!existsSync(file))
    throw new Error(`${folder} has no plan.json: python3 research/protocol.py --to ${folder}`);
  const compared = readJson(file).filter(({ role }) => role !== 'gates');
  return compared.map((run) => {
    const own = join(folder, run.dataset, `${run.role}-seed${run.seed}`);
    const result = join(own, 'result.json');
    return { ...run, folder: own, result: existsSync(result) ? readJson(result) : undefined };
  });
}

export const policyFile = (run, limit) => join(run.folder, `policy-${limit}.json`);

/** A card's registration of a run's model and policies: one line per file. */
export function registrationOf(run, limits = LIMITS[run.dataset]) {
  const files = [join(run.folder, 'model.onnx'), ...limits.map((limit) => policyFile(run, limit))];
  return files.map((file) => `* \`${basename(file)}\`: \`${sha256(readFileSync(file))}\``).join('\n');
}

export const cardName = ({ dataset, role, seed }) => `${dataset}-${role}-seed${seed}.md`;

/** @throws Error if a policy of the run is missing */
export function checkPolicies(run) {
  const absent = LIMITS[run.dataset].map((limit) => policyFile(run, limit)).find((file) => !existsSync(file));
  if (absent) throw new Error(`${absent} is not there: node research/measure/register.mjs`);
}

/** A card's registration of the ladders of one seed: one line per policy, which names the networks by hash. */
export const registrationOfLadders = (ladders) =>
  ladders
    .map(({ name, folder }) => `* ${name}: \`${sha256(readFileSync(join(folder, 'policy.json')))}\``)
    .join('\n');

export const ladderCard = ({ dataset, seed }) => `${dataset}-ladders-seed${seed}.md`;

/**
 * Checks that a run's policies are those of its model card, and that the card is committed.
 * @param cards folder of cards in a git repository
 * @throws Error otherwise, before the test set is read
 */
export function checkRegistered(run, cards = CARDS) {
  checkPolicies(run);
  checkCard(cards, cardName(run), run.name, registrationOf(run));
}

/** The same for the ladders of one seed. */
export function checkLadders(ladders, cards = CARDS) {
  const [{ dataset, seed }] = ladders;
  checkCard(
    cards,
    ladderCard(ladders[0]),
    `${dataset}, ladders of seed ${seed}`,
    registrationOfLadders(ladders),
  );
}

function checkCard(cards, name, what, registration) {
  const how = `node research/measure/register.mjs, commit ${join(cards, name)}, and only then read the test set`;
  let card;
  try {
    card = execFileSync('git', ['-C', cards, 'show', `HEAD:./${name}`], { encoding: 'utf8', stdio: 'pipe' });
  } catch {
    throw new Error(`${what}: no committed model card registers its policies: ${how}`);
  }
  if (!card.includes(registration))
    throw new Error(
      `${what}: model or policies are not those that the committed model card registers: ${how}`,
    );
}
