// What the folder of a ladder, or a policy's, saves on images that it hasn't seen, beside the network in float. Build first.
//   node bench/ladder.mjs FOLDER MODEL IMAGES [--rounds N] [--isa ISA] [--limit N]
// One thread, batch 1. Both take turns of 25 images, all images in each round. Prints CPU time over all of them, wall time of
// an image (its least of all rounds), changed answers, accuracy with the interval of its change, and what each rung answers.
import { parseArgs } from 'node:util';
import { openDataModel } from '../dist/classify/data-model.js';
import { takeEvenly } from '../dist/data/dataset.js';
import { findModel } from '../dist/data/model-files.js';
import { latencyOf, pairedChange } from '../dist/measure/statistics.js';
import { TimedClassifier } from '../dist/measure/timed-classifier.js';
import { argMax } from '../dist/numeric/softmax.js';
import { answeredBy } from '../dist/skip/trace.js';

const TURN = 25;
const MODES = ['full', 'skip'];

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
const percent = (share) => `${(100 * share).toFixed(2)} %`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '3' }, isa: { type: 'string' }, limit: { type: 'string' } },
});
const [folder, original, images] = positionals;
const engine = { isa: values.isa, threads: 1 };
const { policy } = await findModel(folder);
const classifier = new TimedClassifier(await openDataModel(folder, { ...engine, policy }));
await classifier.compareWith(original, engine);
const { list } = await classifier.model.open(images, {});
const chosen = takeEvenly(list, Number(values.limit ?? Number.POSITIVE_INFINITY));
const items = [];
for await (const { item, tensor } of classifier.prepare(chosen)) items.push({ label: item.label, tensor });

const count = { changed: 0, full: 0, skip: 0, gained: 0, lost: 0, skipped: 0 };
const rungs = new Map();
for (const { label, tensor } of items) {
  const { trace, multiplyAdds, scores } = classifier.classify(tensor);
  const answers = { full: argMax(classifier.time(tensor, 'full').scores), skip: argMax(scores) };
  const right = { full: answers.full === label, skip: answers.skip === label };
  for (const mode of MODES) count[mode] += Number(right[mode]);
  count.changed += Number(answers.full !== answers.skip);
  count.gained += Number(right.skip && !right.full);
  count.lost += Number(right.full && !right.skip);
  count.skipped += trace.multiplyAddsSkipped / multiplyAdds;
  const name = answeredBy(trace) ?? 'the network';
  rungs.set(name, (rungs.get(name) ?? 0) + 1);
}

classifier.warmUp(items[0].tensor);
const spent = { full: 0, skip: 0 };
const least = { full: [], skip: [] };
const savedBy = [];
for (let round = 0; round < Number(values.rounds); round++) {
  const before = { ...spent };
  for (let from = 0; from < items.length; from += TURN) {
    const turn = items.slice(from, from + TURN);
    for (const mode of (from / TURN + round) % 2 === 0 ? MODES : MODES.toReversed()) {
      const start = cpu();
      const times = turn.map(({ tensor }) => classifier.time(tensor, mode).milliseconds);
      spent[mode] += cpu() - start;
      for (const [i, time] of times.entries())
        least[mode][from + i] = Math.min(time, least[mode][from + i] ?? Number.POSITIVE_INFINITY);
    }
  }
  savedBy.push(1 - (spent.skip - before.skip) / (spent.full - before.full));
}

const all = items.length;
const { points, ci95 } = pairedChange(all, count.gained, count.lost);
const [full, skip] = MODES.map((mode) => latencyOf(least[mode]));
const runs = all * Number(values.rounds);
console.log(`${folder}: ${all} images, ${classifier.session.isa}, one thread`);
console.log(
  `CPU time ${(spent.full / runs).toFixed(3)} and ${(spent.skip / runs).toFixed(3)} ms: ${percent(1 - spent.skip / spent.full)} saved ` +
    `(rounds: ${savedBy.map(percent).join(', ')})`,
);
for (const figure of ['mean', 'p50', 'p95'])
  console.log(
    `wall time, ${figure}: ${full[figure].toFixed(3)} and ${skip[figure].toFixed(3)} ms, ${percent(1 - skip[figure] / full[figure])} saved`,
  );
console.log(
  `work saved ${percent(count.skipped / all)}; changed ${count.changed}, ${percent(count.changed / all)}`,
);
console.log(
  `accuracy ${percent(count.full / all)} and ${percent(count.skip / all)}: ${points.toFixed(2)} points (${ci95.map((end) => end.toFixed(2)).join(' to ')})`,
);
for (const [name, answered] of rungs) console.log(`  ${name}: ${percent(answered / all)}`);
await classifier.release();
