// Measures the protocol's networks on one data set: answers, saved work, and alternating latencies.
import { join } from 'node:path';
import { alternate } from '../../bench/harness.mjs';
import { onnxruntime, open, openOnnxruntime, readImagesOf, SETS } from '../../bench/networks.mjs';
import { latencyOf } from '../../dist/measure/statistics.js';
import { argMax } from '../../dist/numeric/softmax.js';
import { mean } from '../../dist/numeric/statistics.js';
import { measureLadder, openOnnxruntimeCascade, policyOf } from './ladders.mjs';
import {
  bestStatic,
  blocksEach,
  exitTable,
  oneThreshold,
  sum,
  THRESHOLDS,
  thresholdPolicy,
  withRandomExits,
} from './rivals.mjs';
import { isText, LIMITS, policyFile, validationPath } from './runs.mjs';

/** Number of validation images for the static choice, and of timed images. */
const CHOSEN_ON = 1000;
const TIMED = { default: 2000, imagenette: 500, sst2: 600 };

const share = (flags) => mean(flags.map(Number));

/** Runs a network on each image with the policy that it was opened with. */
function runAll(network, images) {
  return images.map(({ image, tensor }) => {
    const { scores, trace, multiplyAdds, layers } = network.classify(tensor);
    const skipped = trace.blocks.map(({ ran }) => !ran);
    return {
      right: argMax(scores) === image.label,
      saved: trace.multiplyAddsSkipped / multiplyAdds,
      layers: trace.layersSkipped / layers,
      exit: trace.exits.find(({ taken }) => taken)?.after,
      skipped,
    };
  });
}

/** Skip rate of the blocks in each stage of `depths`, of `each` blocks a layer. */
function byStage(results, depths, each) {
  let first = 0;
  return depths.map((depth) => {
    const [from, to] = [first, first + depth * each];
    first = to;
    return mean(results.map(({ skipped }) => share(skipped.slice(from, to))));
  });
}

async function measurePlain(run, images) {
  const network = await open(run.folder, 'full');
  const right = runAll(network, images).map((one) => one.right);
  await network.release();
  return { ...describe(run), accuracy: share(right), right };
}

function describe({ name, role, seed, depths, widths, result }) {
  return { name, role, seed, depths, widths, multiplyAdds: result.multiplyAdds };
}

async function measureGated(run, images, validation) {
  const points = [];
  let headline;
  for (const limit of LIMITS[run.dataset]) {
    const network = await open(run.folder, policyFile(run, limit));
    const results = runAll(network, images);
    await network.release();
    const saved = mean(results.map((one) => one.saved));
    points.push({ limit, saved, accuracy: share(results.map((one) => one.right)) });
    headline ??= results;
  }
  const [{ saved, accuracy }] = points;
  const full = await open(run.folder, 'full');
  const inFull = share(runAll(full, images).map((one) => one.right));
  const each = blocksEach(full.blocks, run);
  await full.release();
  const table = await exitTable(run, images);
  const blocks = sum(run.depths) * each;
  const skippedBlocks = mean(headline.map(({ skipped }) => sum(skipped.map(Number))));
  return {
    ...describe(run),
    accuracy,
    right: headline.map((one) => one.right),
    inFull,
    saved,
    layers: mean(headline.map((one) => one.layers)),
    layersEach: headline.map((one) => Number(one.layers.toFixed(4))),
    // Two convolutions for each block of a ResNet, the stem and the classifier; shortcuts don't count (He et al. 2016).
    paperLayers: full.model.what === 'image' ? (2 * skippedBlocks) / (2 * blocks + 2) : undefined,
    blocks: skippedBlocks / blocks,
    stages: byStage(headline, run.depths, each),
    curve: points,
    oneThreshold: oneThreshold(table),
    random: withRandomExits(
      table,
      headline.map((one) => one.exit),
    ),
    static: await bestStatic(run, saved, validation, images),
  };
}

/** Latencies of all networks and ladders of the first seed, and of the gated one with each policy, alternating. */
async function timeAll(dataset, runs, ladders, images, progress) {
  const [first] = runs.map(({ seed }) => seed).sort();
  const own = runs.filter(({ seed }) => seed === first);
  const plain = own.filter(({ role }) => role !== 'gated');
  const gated = own.find(({ role }) => role === 'gated');
  const runners = [];
  let feedsOf;
  const add = async (name, folder, policy) => {
    const network = await open(folder, policy);
    feedsOf ??= (tensor) => network.feeds(tensor);
    const run = (tensor) => network.time(tensor, 'skip').scores;
    runners.push({ name, run, release: () => network.release() });
  };
  for (const run of plain) await add(run.role, run.folder, 'full');
  if (gated) {
    await add('gated in full', gated.folder, 'full');
    for (const limit of LIMITS[dataset]) await add(`limit ${limit}`, gated.folder, policyFile(gated, limit));
    for (const threshold of THRESHOLDS)
      await add(`threshold ${threshold}`, gated.folder, await thresholdPolicy(gated, threshold, images));
  }
  for (const ladder of ladders.filter(({ seed }) => seed === first))
    await add(ladder.name, ladder.folder, policyOf(ladder));
  const peer = onnxruntime();
  for (const run of peer ? own.filter(({ role }) => role === 'twin' || role === 'gated') : [])
    runners.push({ name: `onnxruntime ${run.role}`, ...(await openOnnxruntime(peer, run.folder, feedsOf)) });
  for (const ladder of peer
    ? ladders.filter((one) => one.seed === first && one.models[0].role === 'twin')
    : []) {
    const cascade = await openOnnxruntimeCascade(peer, ladder, feedsOf);
    if (cascade) runners.push({ name: `onnxruntime ${ladder.name}`, ...cascade });
  }
  const every = Math.max(1, Math.floor(images.length / (TIMED[dataset] ?? TIMED.default)));
  const some = images.filter((_, i) => i % every === 0);
  progress(`${dataset}: times`, some.length);
  // A session compiles for each length of a text when it first gets one; that isn't part of a text's latency.
  if (isText(dataset)) for (const { run } of runners) for (const { tensor } of some) await run(tensor);
  const times = await alternate(runners, some, () => {}, progress.advance);
  const energy = gated && (await energyOf(gated, some));
  for (const { release } of runners) await release();
  const latencyMs = Object.fromEntries(
    runners.map(({ name, turns }, k) => [name, { ...latencyOf(times[k]), turns: turns.map(({ ms }) => ms) }]),
  );
  return { latencyMs, energy, seed: first, timed: some.length, peer: peer?.version };
}

async function energyOf(run, images) {
  const network = await open(run.folder, policyFile(run, LIMITS[run.dataset][0]));
  const report = network.measureEnergy(images.slice(0, 100).map(({ tensor }) => tensor));
  await network.release();
  return report;
}

/**
 * @param runs finished runs of one data set
 * @param ladders of these runs
 * @param part 'test', or 'validation', for which nothing is claimed
 */
export async function measureRuns(dataset, runs, ladders, { folder, data, part, limit, progress }) {
  const gated = runs.filter(({ role }) => role === 'gated');
  const reader = await open(runs[0].folder, 'full');
  const held = validationPath(folder, dataset);
  const path = part === 'test' ? join(data, dataset, SETS[dataset].test) : held;
  const images = await readImagesOf(reader, path, limit);
  const validation =
    gated.length > 0 ? await readImagesOf(reader, held, Math.min(limit ?? CHOSEN_ON, CHOSEN_ON)) : [];
  const { isa } = reader.session;
  await reader.release();
  const networks = [];
  progress(`${dataset}: networks`, runs.length);
  for (const run of runs) {
    const gates = run.role === 'gated';
    networks.push(gates ? await measureGated(run, images, validation) : await measurePlain(run, images));
    progress.advance(1);
  }
  const above = [];
  for (const ladder of ladders) above.push(await measureLadder(ladder, images));
  const times = await timeAll(dataset, runs, ladders, images, progress);
  return {
    dataset,
    part,
    complete: part === 'test' && limit === undefined,
    items: images.length,
    isa,
    networks,
    ladders: above,
    ...times,
  };
}
