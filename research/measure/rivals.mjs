// Simpler ways to choose a depth in the gated network: one threshold for all exits, a random exit, a static choice.

import { open } from '../../bench/networks.mjs';
import { argMax, softmax } from '../../dist/numeric/softmax.js';
import { mean } from '../../dist/numeric/statistics.js';

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Thresholds for ordinary early exit. */
export const THRESHOLDS = [0.7, 0.8, 0.9, 0.95, 0.98, 0.99];
/** A threshold that no score reaches. */
const NEVER = 2;

const policyOf = (exits, blocks = {}) => ({ version: 1, blocks, heads: { exits, gates: [] } });

/** Blocks of a residual layer, as the run's depths count them: one in a ResNet, two in an encoder. */
export const blocksEach = (blocks, { depths }) => blocks.length / sum(depths);

/** The blocks of a run's network, with their shares of an image's work. */
async function blocksOf({ folder }, { tensor }) {
  const network = await open(folder, 'full');
  network.classify(tensor);
  const { blocks } = network;
  await network.release();
  return blocks;
}

/** Names of the blocks that an exit follows: the last one of each layer from the end of the first stage on, but not of the last. */
async function exitsOf(run, image) {
  const blocks = await blocksOf(run, image);
  const each = blocksEach(blocks, run);
  const layers = blocks.filter((_, i) => (i + 1) % each === 0);
  return layers.slice(run.depths[0] - 1, -1).map(({ name }) => name);
}

/** Policy with which all images leave at one exit, or at the end if none is given. */
function leavingAt(names, after) {
  const exits = after === undefined ? names : names.slice(0, names.indexOf(after) + 1);
  return policyOf(exits.map((name) => ({ after: name, threshold: name === after ? 0 : NEVER })));
}

/** Ordinary early exit: all exits have the same threshold. */
export async function thresholdPolicy(run, threshold, [image]) {
  return policyOf((await exitsOf(run, image)).map((after) => ({ after, threshold })));
}

async function answersUnder(folder, policy, images) {
  const network = await open(folder, policy);
  const results = images.map(({ image, tensor }) => {
    const { scores, trace, multiplyAdds } = network.classify(tensor);
    return {
      right: argMax(scores) === image.label,
      saved: trace.multiplyAddsSkipped / multiplyAdds,
      score: Math.max(...softmax(scores)),
    };
  });
  await network.release();
  return results;
}

/** [{ after, results }] for every exit if all images leave there; last the end of the network, where `after` is undefined. */
export async function exitTable(run, images) {
  const names = await exitsOf(run, images[0]);
  const table = [];
  for (const after of [...names, undefined])
    table.push({ after, results: await answersUnder(run.folder, leavingAt(names, after), images) });
  return table;
}

/** Accuracy and share of multiply-adds saved if each image leaves at the first exit that is sure enough. */
export function oneThreshold(table) {
  const images = table[0].results.map((_, i) => i);
  return THRESHOLDS.map((threshold) => {
    const taken = images.map((i) => {
      const exit = table.find(({ after, results }) => after === undefined || results[i].score >= threshold);
      return exit.results[i];
    });
    return { threshold, ...summary(taken) };
  });
}

const summary = (results) => ({
  accuracy: mean(results.map(({ right }) => Number(right))),
  saved: mean(results.map(({ saved }) => saved)),
});

/** Expected results of leaving at a random exit, with the frequencies of the policy. */
export function withRandomExits(table, taken) {
  const shares = table.map(({ after }) => taken.filter((exit) => exit === after).length / taken.length);
  const each = table.map(({ results }) => summary(results));
  const expected = (key) => each.reduce((total, one, e) => total + shares[e] * one[key], 0);
  return { accuracy: expected('accuracy'), saved: expected('saved') };
}

/**
 * The best choice that is the same for all images: either all leave at one exit, or some blocks are skipped. It saves at most
 * what the policy saves, but less than one block less, and has the highest accuracy on validation images. The skipped blocks
 * are found greedily, starting with the one whose absence costs the least.
 */
export async function bestStatic(run, saved, validation, images) {
  const { folder } = run;
  const all = await blocksOf(run, images[0]);
  const blocks = all.filter(({ skippable }) => skippable);
  const largest = Math.max(...all.map(({ share }) => share));
  const choices = [];
  const names = await exitsOf(run, images[0]);
  for (const { after, results } of await exitTable(run, validation)) {
    const name = after === undefined ? 'all blocks' : `exit after ${after}`;
    choices.push({ name, policy: leavingAt(names, after), ...summary(results) });
  }

  const dropped = [];
  const left = new Set(blocks.map(({ index }) => index));
  while (left.size > 0) {
    const tried = [];
    for (const index of left) {
      const policy = without([...dropped, index]);
      tried.push({ index, policy, ...summary(await answersUnder(folder, policy, validation)) });
    }
    const best = tried.reduce((a, b) => (b.accuracy > a.accuracy ? b : a));
    if (best.saved > saved) break;
    dropped.push(best.index);
    left.delete(best.index);
    choices.push({ ...best, name: `without blocks ${[...dropped].sort((a, b) => a - b).join(', ')}` });
  }
  const fitting = choices.filter((choice) => choice.saved <= saved && choice.saved > saved - largest);
  const near = fitting.length > 0 ? fitting : choices.filter((choice) => choice.saved <= saved).slice(-1);
  const best = near.reduce((a, b) => (b.accuracy > a.accuracy ? b : a));
  return { choice: best.name, ...summary(await answersUnder(folder, best.policy, images)) };
}

const without = (dropped) => policyOf([], Object.fromEntries(dropped.map((index) => [index, 'skip'])));
