// Simple ways to skip, certified like policies: their settings are ordered from careful to bold without looking at the items
// that certify, and the last one that passes is used.

import { binomialPValue, fixedSequenceTest } from '../../../dist/calibrate/certify/p-values.js';
import { Evaluator, runAll } from '../../../dist/calibrate/run/evaluator.js';
import { generator } from '../../../dist/numeric/random.js';
import { argMax, softmax } from '../../../dist/numeric/softmax.js';
import { attachExits } from '../../../dist/skip/attach.js';
import { BlockMode } from '../../../dist/skip/compiled-policy.js';

/** Thresholds on a confidence, from careful to bold. */
const THRESHOLDS = Array.from({ length: 60 }, (_, i) => 1 - 0.0001 * 1.15 ** i).filter((at) => at > 0.3);
/** Fractions of the skippable blocks that are skipped at random. */
const SHARES = [0.01, 0.02];

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

async function answersOf(backend, program, inputs, modes = runAll) {
  const evaluator = new Evaluator(backend, program);
  const outcomes = await evaluator.run(inputs, evaluator.policy(modes));
  evaluator.release();
  return outcomes.map(({ outputs }) => outputs[0]);
}

/** The full network's class for each item. */
export async function fullAnswers(backend, program, inputs) {
  return (await answersOf(backend, program, inputs)).map(argMax);
}

/** Certifies a list of settings; `outcome(setting, part)` returns the answer and the savings for each item of a part. */
function certified(settings, outcome, full, limit, delta) {
  const changedOf = (results, answers) => results.filter(({ answer }, i) => answer !== answers[i]).length;
  const pValues = settings.map((setting) => {
    const results = outcome(setting, 'certify');
    return binomialPValue(changedOf(results, full.certify), results.length, limit);
  });
  const chosen = fixedSequenceTest(pValues, delta);
  if (chosen < 0) return { setting: null, saved: 0, disagreement: 0, answers: full.test };
  const results = outcome(settings[chosen], 'test');
  return {
    setting: settings[chosen],
    saved: mean(results.map(({ saved }) => saved)),
    disagreement: changedOf(results, full.test) / results.length,
    answers: results.map(({ answer }) => answer),
  };
}

/** The answers of each exit if all items left there: by exit, then by item. */
async function exitTable(backend, program, exits, inputs) {
  const table = [];
  for (const [e, exit] of exits.entries()) {
    // An exit reads the previous ones; a threshold of 2 keeps items from leaving there.
    const passed = exits.slice(0, e).map((before) => ({ ...before, threshold: 2 }));
    const alone = attachExits(program, [...passed, { ...exit, threshold: 0 }]);
    const { blocks, beyond, multiplyAdds } = alone.exits.at(-1);
    const behind = alone.blocks.slice(blocks).reduce((sum, { cost }) => sum + cost.multiplyAdds, 0);
    const saved = (behind + beyond) / program.cost.multiplyAdds;
    const asking = multiplyAdds / program.cost.multiplyAdds;
    const logits = await answersOf(backend, alone, inputs);
    table.push(
      logits.map((scores) => ({
        answer: argMax(scores),
        saved,
        asking,
        confidence: softmax(scores)[argMax(scores)],
      })),
    );
  }
  return table;
}

/**
 * @param parts inputs of the items that order the settings (`order`), of those that certify, and of the test items
 * @returns for each baseline, the multiply-adds skipped and the answers changed on the test items at the certified limit
 */
export async function baselines(backend, program, exits, parts, { limit, delta }) {
  const full = {};
  for (const part of ['order', 'certify', 'test'])
    full[part] = await fullAnswers(backend, program, parts[part]);
  const costs = program.blocks.map(({ cost }) => cost.multiplyAdds / program.cost.multiplyAdds);
  const skippable = program.blocks.flatMap((block, i) => (block.skippable && !block.gate ? [i] : []));

  // Each setting skips one more block, starting with the one whose absence changes the fewest answers.
  const influence = [];
  for (const block of skippable) {
    const without = await answersOf(backend, program, parts.order, (i) =>
      i === block ? BlockMode.skip : BlockMode.run,
    );
    influence.push({
      block,
      changed: without.filter((scores, i) => argMax(scores) !== full.order[i]).length,
    });
  }
  const order = influence.sort((a, b) => a.changed - b.changed).map(({ block }) => block);
  const drops = new Map();
  for (const part of ['certify', 'test']) {
    // The first setting that fails ends the sequence, usually with the first block.
    for (let count = 1; count <= 3; count++) {
      const dropped = order.slice(0, count);
      const scores = await answersOf(backend, program, parts[part], (i) =>
        dropped.includes(i) ? BlockMode.skip : BlockMode.run,
      );
      const saved = dropped.reduce((sum, block) => sum + costs[block], 0);
      drops.set(
        `${count} ${part}`,
        scores.map((own) => ({ answer: argMax(own), saved })),
      );
    }
  }

  const tables = { certify: [], test: [] };
  for (const part of ['certify', 'test'])
    tables[part] = await exitTable(backend, program, exits, parts[part]);
  const withExits = (places) => (threshold, part) =>
    full[part].map((answer, i) => {
      let spent = 0;
      for (const [e, table] of tables[part].entries()) {
        const exit = table[i];
        spent += exit.asking;
        if (places.includes(e) && exit.confidence >= threshold)
          return { answer: exit.answer, saved: exit.saved - spent };
      }
      return { answer, saved: -spent };
    });

  const random = new Map();
  for (const part of ['certify', 'test']) {
    for (const share of SHARES) {
      random.set(`${share} ${part}`, await skipAtRandom(backend, program, skippable, share, parts[part]));
    }
  }
  const limits = [full, limit, delta];
  const everyExit = exits.map((_, e) => e);
  return {
    'one threshold for all exits': certified(THRESHOLDS, withExits(everyExit), ...limits),
    'confidence at the last exit': certified(THRESHOLDS, withExits(everyExit.slice(-1)), ...limits),
    'blocks of least influence dropped': certified(
      [1, 2, 3],
      (count, part) => drops.get(`${count} ${part}`),
      ...limits,
    ),
    'blocks dropped at random': certified(SHARES, (share, part) => random.get(`${share} ${part}`), ...limits),
  };
}

/** Skips each skippable block with probability `share`, independently for every item. */
async function skipAtRandom(backend, program, skippable, share, inputs) {
  const random = generator(1);
  const evaluator = new Evaluator(backend, program);
  const results = [];
  for (const input of inputs) {
    const dropped = skippable.filter(() => random() < share);
    const modes = evaluator.policy((i) => (dropped.includes(i) ? BlockMode.skip : BlockMode.run));
    const [{ outputs, ran }] = await evaluator.run([input], modes);
    const saved = program.blocks.reduce((sum, { cost }, i) => sum + (ran[i] ? 0 : cost.multiplyAdds), 0);
    results.push({ answer: argMax(outputs[0]), saved: saved / program.cost.multiplyAdds });
  }
  evaluator.release();
  return results;
}
