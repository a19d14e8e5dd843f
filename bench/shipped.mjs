// The table of the README: the shipped networks on test images, in full, skipping by the policy of their folder, and on
// onnxruntime-node. One thread and one image at a time; the three take turns. Prints milliseconds, mean and median, and accuracies.
//   node bench/shipped.mjs --data DIR [--limit N]        (needs `npm run compile`, and the peers of bench/package.json)
// DIR has a folder for each data set, as `npm run reproduce` reads them.
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { nativeInfo } from '../dist/backends/native.js';
import { alternate, median, table } from './harness.mjs';
import { modelFolders, onnxruntime, open, openOnnxruntime, partPath, readImages, SETS } from './networks.mjs';

const { values } = parseArgs({
  options: { data: { type: 'string' }, limit: { type: 'string', default: '10000' } },
});
const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const highest = (scores) => scores.indexOf(scores.reduce((a, b) => Math.max(a, b)));

const rows = [];
for (const [name, { title }] of Object.entries(SETS)) {
  if (name === 'sst2' || !values.data || !existsSync(partPath(values.data, name, 'test'))) continue;
  const { plain, skipping } = modelFolders(name);
  const full = await open(plain, 'full');
  const skips = await open(skipping);
  const items = await readImages(full, values.data, name, 'test', Number(values.limit));
  const peer = await openOnnxruntime(onnxruntime(), plain, (tensor) => ({
    [full.session.inputNames[0]]: tensor,
  }));
  const right = [0, 0, 0];
  const runners = [full, skips]
    .map((network) => ({ run: (tensor) => network.classify(tensor) }))
    .concat(peer);
  const times = await alternate(runners, items, (index, item, answer) => {
    if (highest([...(answer.scores ?? answer)]) === items[item].image.label) right[index]++;
  });
  const percent = (count) => `${((100 * count) / items.length).toFixed(2)} %`;
  rows.push([
    title,
    ...times.map((list) => `${mean(list).toFixed(2)} (${median(list).toFixed(2)})`),
    percent(right[0]),
    percent(right[1]),
  ]);
  await Promise.all([full, skips, peer].map((each) => each.release()));
}
console.log(`${cpus()[0].model}, ${nativeInfo().isas.at(-1)}; milliseconds: mean (median)`);
console.log(
  table(['', 'full, ms', 'skipping, ms', 'onnxruntime-node, ms', 'accuracy, full', 'skipping'], rows),
);
