// Ladders of the protocol's networks. Rivals are what needs nothing of this package: cascades of plain networks and 8-bit networks, without
// exits. Ours have exits, fitted in the twin and in its fronts, or end with the network that was trained with exits if that is faster. `speedup`
// makes all of them on the validation part, for the data set's lowest limit and by the time of this machine.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { open, openOnnxruntime } from '../../bench/networks.mjs';
import { speedup, writeLadder } from '../../dist/index.js';
import { argMax, softmax } from '../../dist/numeric/softmax.js';
import { mean } from '../../dist/numeric/statistics.js';
import { isText, limitOfLadders, validationPath } from './runs.mjs';

/** The names of ladders with exits; all others are rivals. */
export const OURS = { float: 'ladder', int8: 'ladder, 8 bits' };
/** The rival of the second: the plain networks in 8 bits, alone or one before the other, whatever is the fastest. */
export const PLAIN_INT8 = 'plain, 8 bits';

const byCost = (a, b) => a.result.multiplyAdds - b.result.multiplyAdds;

/**
 * Plans of the ladders of one seed's networks: [{ name, models, fronts, int8, exits }], of finished runs alone. Of several models, the one
 * behind which the ladder is the fastest is its last network.
 */
function planned(runs) {
  const plain = runs.filter(({ role }) => role !== 'gated').sort(byCost);
  const twin = runs.find(({ role }) => role === 'twin');
  const pairs = plain.flatMap((large, i) =>
    plain.slice(0, i).map((small) => ({
      name: `${small.role} before ${large.role}`,
      ...{ models: [large], fronts: [small], int8: false, exits: false },
    })),
  );
  const smaller = plain.filter((run) => run !== twin);
  if (!twin) return pairs;
  const last = [twin, ...runs.filter(({ role }) => role === 'gated')];
  const behindAll = (name, int8, exits) => {
    const models = exits ? last : [twin];
    return { name, models, fronts: smaller, int8, exits };
  };
  return [
    ...pairs,
    behindAll(OURS.float, false, true),
    ...(isText(runs[0].dataset)
      ? []
      : [behindAll(PLAIN_INT8, true, false), behindAll(OURS.int8, true, true)]),
  ];
}

/** The ladders of a data set's finished runs, in folders beside theirs. */
export function laddersOf(runs) {
  const seeds = [...new Set(runs.map(({ seed }) => seed))].sort();
  return seeds.flatMap((seed) => {
    const own = runs.filter((run) => run.seed === seed && run.result);
    return own.length < 2
      ? []
      : planned(own).map((ladder) => ({
          ...ladder,
          dataset: own[0].dataset,
          seed,
          folder: join(own[0].folder, '..', `${ladder.name.replaceAll(/\W+/g, '-')}-seed${seed}`),
        }));
  });
}

/** Makes a ladder; where nothing pays, none is written, and the full network is what is compared. */
export async function makeLadder({ dataset, models, fronts, int8, exits, folder, name, seed }, trainings) {
  if (existsSync(folder)) return;
  let best;
  for (const { folder: model, role } of models) {
    const made = await speedup(model, validationPath(trainings, dataset), {
      ...{ front: fronts.map((front) => front.folder), int8, exits, bfloat16: false },
      ...{ metric: 'accuracy', labelsFrom: 'data' },
      ...{
        maxDisagreement: limitOfLadders(dataset),
        // One of them is chosen after all have read the certifying items.
        confidence: 1 - 0.05 / models.length,
        threads: 1,
        seed: 1,
        onNote: (note) => console.log(`${name}, seed ${seed}, before ${role}: ${note}`),
      },
    });
    const ms = made.calibration?.policy.expected.latency.policyMs.mean;
    console.log(`${name}, seed ${seed}, before ${role}: ${ms?.toFixed(3) ?? 'no'} ms`);
    if (ms !== undefined && !(ms >= best?.ms)) best = { model, made, ms };
  }
  if (best) await writeLadder(best.made, best.model, folder);
}

export const policyOf = ({ folder }) => join(folder, 'policy.json');
export const isMade = ({ folder }) => existsSync(policyOf({ folder }));

/** Answers and cost of a ladder on labelled images. */
export async function measureLadder({ name, seed, folder }, images) {
  const network = await open(folder, policyOf({ folder }));
  const items = images.map(({ image, tensor }) => {
    const { scores, trace, multiplyAdds } = network.classify(tensor);
    return { right: argMax(scores) === image.label, work: multiplyAdds - trace.multiplyAddsSkipped };
  });
  await network.release();
  const right = items.map((item) => item.right);
  return {
    role: name,
    seed,
    right,
    accuracy: mean(right.map(Number)),
    work: mean(items.map(({ work }) => work)),
  };
}

/** The threshold of a cascade of two float networks; undefined for any other ladder. */
function thresholdOf({ folder, fronts: given, int8 }) {
  const { fronts = [], heads } = JSON.parse(readFileSync(policyOf({ folder }), 'utf8'));
  const [exit, ...more] = heads?.exits ?? [];
  const one = !int8 && given.length === 1 && fronts.length === 1 && !fronts[0].size && more.length === 0;
  return one && exit?.after === fronts[0].name ? exit.threshold : undefined;
}

/** A cascade as two sessions of onnxruntime-node on one thread: what a user would write without this package. */
export async function openOnnxruntimeCascade(peer, ladder, feedsOf) {
  const threshold = thresholdOf(ladder);
  if (threshold === undefined) return undefined;
  const [small, large] = await Promise.all(
    [ladder.fronts[0], ladder.models[0]].map(({ folder }) => openOnnxruntime(peer, folder, feedsOf)),
  );
  return {
    run: async (tensor) => {
      const scores = await small.run(tensor);
      return Math.max(...softmax(scores)) >= threshold ? scores : large.run(tensor);
    },
    release: () => Promise.all([small.release(), large.release()]),
  };
}
