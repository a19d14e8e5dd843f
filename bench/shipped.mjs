// The table of the README: the shipped networks on test images, in full, skipping by the policy of their folder, the same in 8 bits,
// and on onnxruntime-node. One thread and one image at a time; they take turns. Prints milliseconds, mean and median, and
// accuracies; with the 95 % intervals of what skipping changes.
//   node bench/shipped.mjs --data DIR [--limit N]        (needs `npm run compile`, and the peers of bench/package.json)
// DIR has a folder for each data set, as `npm run reproduce` reads them.
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
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
  const policy = join(skipping, 'policy.int8.json');
  const full = await open(plain, 'full');
  const skips = await open(skipping);
  const int8 = existsSync(policy) ? await open(join(skipping, 'model.int8.onnx'), policy) : undefined;
  const items = await readImages(full, values.data, name, 'test', Number(values.limit));
  const peer = await openOnnxruntime(onnxruntime(), plain, (tensor) => ({
    [full.session.inputNames[0]]: tensor,
  }));
  const networks = [full, skips, ...(int8 ? [int8] : [])];
  const right = [...networks, peer].map(() => []);
  const runners = [...networks.map((network) => ({ run: (tensor) => network.classify(tensor) })), peer];
  const times = await alternate(runners, items, (index, item, answer) => {
    right[index][item] = highest([...(answer.scores ?? answer)]) === items[item].image.label;
  });
  const ms = times.map((list) => `${mean(list).toFixed(2)} (${median(list).toFixed(2)})`);
  const shares = right.map((flags) => percent(mean(flags.map(Number)), 2));
  const blank = int8 ? [] : [''];
  rows.push([
    title,
    ...[...ms.slice(0, networks.length), ...blank, ms.at(-1)],
    ...[...shares.slice(0, networks.length), ...blank],
  ]);
  for (const [index, how] of [
    [1, 'skipping'],
    [2, 'skipping in 8 bits'],
  ].slice(0, networks.length - 1)) {
    const only = (one, other) => right[one].filter((ok, i) => ok && !right[other][i]).length;
    const change = pairedChange(items.length, only(index, 0), only(0, index));
    const { value, ci95 } = cutOf(...[0, index].map((k) => runners[k].turns.map((turn) => turn.ms)));
    const [low, high] = ci95.map((end) => percent(end, 1));
    changes.push(
      `${title}: ${how} saves ${percent(value, 1)} (${low} to ${high}) of the mean time; accuracy ${wordChange(change)}`,
    );
  }
  await Promise.all([...networks, peer].map((each) => each.release()));
}
console.log(`${cpus()[0].model}, ${nativeInfo().isas.at(-1)}; milliseconds: mean (median)`);
console.log(
  table(
    [
      ...['', 'full, ms', 'skipping, ms', '8 bits, skipping, ms', 'onnxruntime-node, ms'],
      ...['accuracy, full', 'skipping', '8 bits, skipping'],
    ],
    rows,
  ),
);
console.log(`\n${changes.join('\n')}`);
