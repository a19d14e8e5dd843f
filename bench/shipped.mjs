// The table of the README: the shipped networks on test images, in full, skipping by the policy of their folder, and on
// onnxruntime-node. One thread and one image at a time; the three take turns. Prints milliseconds, mean and median, and accuracies;
// with the 95 % intervals of what skipping changes.
//   node bench/shipped.mjs --data DIR [--limit N]        (needs `npm run compile`, and the peers of bench/package.json)
// DIR has a folder for each data set, as `npm run reproduce` reads them.
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { nativeInfo } from '../dist/backends/addon.js';
import { pairedChange } from '../dist/measure/statistics.js';
import { alternate, median, table, wordChange } from './harness.mjs';
import { cutOf } from './intervals.mjs';
import { modelFolders, onnxruntime, open, openOnnxruntime, partPath, readImages, SETS } from './networks.mjs';

const { values } = parseArgs({
  options: { data: { type: 'string' }, limit: { type: 'string', default: '10000' } },
});
const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const highest = (scores) => scores.indexOf(scores.reduce((a, b) => Math.max(a, b)));

const percent = (value, digits) => `${(100 * value).toFixed(digits)} %`;

const rows = [];
const changes = [];
for (const [name, { title }] of Object.entries(SETS)) {
  if (name === 'sst2' || !values.data || !existsSync(partPath(values.data, name, 'test'))) continue;
  const { plain, skipping } = modelFolders(name);
  const full = await open(plain, 'full');
  const skips = await open(skipping);
  const items = await readImages(full, values.data, name, 'test', Number(values.limit));
  const peer = await openOnnxruntime(onnxruntime(), plain, (tensor) => ({
    [full.session.inputNames[0]]: tensor,
  }));
  const right = [[], [], []];
  const runners = [full, skips]
    .map((network) => ({ run: (tensor) => network.classify(tensor) }))
    .concat(peer);
  const times = await alternate(runners, items, (index, item, answer) => {
    right[index][item] = highest([...(answer.scores ?? answer)]) === items[item].image.label;
  });
  const share = (flags) => percent(mean(flags.map(Number)), 2);
  rows.push([
    title,
    ...times.map((list) => `${mean(list).toFixed(2)} (${median(list).toFixed(2)})`),
    share(right[0]),
    share(right[1]),
  ]);
  const only = (one, other) => right[one].filter((ok, i) => ok && !right[other][i]).length;
  const change = pairedChange(items.length, only(1, 0), only(0, 1));
  const { value, ci95 } = cutOf(...[full, skips].map((_, k) => runners[k].turns.map(({ ms }) => ms)));
  const [low, high] = ci95.map((end) => percent(end, 1));
  changes.push(
    `${title}: skipping saves ${percent(value, 1)} (${low} to ${high}) of the mean time; accuracy ${wordChange(change)}`,
  );
  await Promise.all([full, skips, peer].map((each) => each.release()));
}
console.log(`${cpus()[0].model}, ${nativeInfo().isas.at(-1)}; milliseconds: mean (median)`);
console.log(
  table(['', 'full, ms', 'skipping, ms', 'onnxruntime-node, ms', 'accuracy, full', 'skipping'], rows),
);
console.log(`\n${changes.join('\n')}`);
