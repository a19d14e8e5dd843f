// Baselines for the gates: static and random choices, which don't look at the image, and one dial for all thresholds.

import { argMax } from '../../dist/numeric/softmax.js';
import { quantile } from '../../dist/numeric/statistics.js';
import { open } from './networks.mjs';

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Skips the gated blocks that are not in `kept` and runs the others, regardless of their gates. */
export function keepPolicy(blocks, kept) {
  const gated = blocks.filter(({ gate }) => gate);
  return {
    blocks: Object.fromEntries(gated.map(({ index }) => [index, kept.includes(index) ? 'run' : 'skip'])),
  };
}

function subsets(items) {
  return Array.from({ length: 2 ** items.length }, (_, mask) => items.filter((_, i) => (mask >> i) & 1));
}

/**
 * The fixed choice of blocks with the highest accuracy on the training images, among all choices of about the gates' cost:
 * at least as many multiply-adds, but less than one block more.
 */
export async function chooseStatic(folder, blocks, bypassed, training) {
  const gated = blocks.filter(({ gate }) => gate);
  const largest = Math.max(...gated.map(({ share }) => share));
  const skippedBy = (kept) =>
    sum(gated.filter(({ index }) => !kept.includes(index)).map(({ share }) => share));
  const choices = subsets(gated.map(({ index }) => index)).filter((kept) => {
    const skipped = skippedBy(kept);
    return skipped <= bypassed && skipped > bypassed - largest;
  });
  const network = await open(folder, 'full');
  const rightness = (kept) => {
    const policy = keepPolicy(blocks, kept);
    return training.filter(({ image, tensor }) => {
      const outputs = network.session.runSync(network.feeds(tensor), { policy });
      return argMax(Object.values(outputs)[0].data) === image.label;
    }).length;
  };
  const rated = choices.map((kept) => ({ kept, right: rightness(kept) }));
  await network.release();
  const best = rated.reduce((a, b) => (b.right > a.right ? b : a));
  return { kept: best.kept, choices: choices.length, multiplyAddsBypassed: skippedBy(best.kept) };
}

/** Uniform number in [0, 1) from an integer (the finaliser of MurmurHash3). */
function hashed(value) {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
}

/** Random gated blocks for image `seed`, as many as the gates run on average. */
export function randomKept(gates, average, seed) {
  const count = Math.floor(average) + (hashed(seed * 97 + 13) < average % 1 ? 1 : 0);
  const order = gates.map((block, i) => [hashed(seed * 97 + i + 31), block]).sort(([a], [b]) => a - b);
  return order.slice(0, count).map(([, block]) => block);
}

/** Thresholds for all gates at once, at quantiles of the scores from "every block runs" to "none does"; includes 0. */
export function dialThresholds(scores, settings) {
  const between = Array.from({ length: settings - 2 }, (_, i) => quantile(scores, (i + 1) / (settings - 1)));
  const [low, high] = [quantile(scores, 0) - 1, quantile(scores, 1) + 1];
  return [low, ...between, 0, high].sort((a, b) => a - b);
}
