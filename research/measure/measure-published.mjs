// Measures a policy for a network that others trained, on images that neither fitted nor certified it, and stores the figures
// for the claims of docs/lab/protocol.md. Read these images only once, when there is nothing left to choose.
//   node research/measure/measure-published.mjs CLAIM POLICY --model MODEL --data REST [--original MODEL]
// CLAIM is a key of published.mjs. --original is the network that MODEL was adapted from; changed answers are
// counted against it. The images need labels if the claim is about accuracy.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { alternate } from '../../bench/harness.mjs';
import { bootstrapOf } from '../../bench/intervals.mjs';
import { open } from '../../bench/networks.mjs';
import { itemsOfPath } from '../../dist/classify/images.js';
import { latencyOf, pairedChange } from '../../dist/measure/statistics.js';
import { argMax } from '../../dist/numeric/softmax.js';
import { mean } from '../../dist/numeric/statistics.js';
import { PUBLISHED, publishedClaims, readPublished, writePublished } from './published.mjs';

/** Number of timed images. */
const TIMED = 500;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { model: { type: 'string' }, data: { type: 'string' }, original: { type: 'string' } },
});
const [name, policy] = positionals;
const { model, data, original = model } = values;
if (!Object.hasOwn(PUBLISHED, name) || !policy || !model || !data) {
  console.error(
    `Usage: node research/measure/measure-published.mjs ${Object.keys(PUBLISHED).join('|')} POLICY --model MODEL --data REST [--original MODEL]`,
  );
  process.exit(2);
}
const labelled = PUBLISHED[name].points !== undefined;

const [before, after] = [await open(original, 'full'), await open(model, policy)];
const samples = await itemsOfPath(data, before.model.images, { labelsFrom: labelled ? 'data' : 'none' });
const results = [];
const timed = [];
const every = Math.max(1, Math.floor(samples.length / TIMED));
for await (const { item: image, tensor } of before.prepare(samples)) {
  const full = argMax(before.classify(tensor).scores);
  const { scores, trace, multiplyAdds } = after.classify(tensor);
  results.push({
    full,
    answer: argMax(scores),
    label: image.label,
    saved: trace.multiplyAddsSkipped / multiplyAdds,
  });
  if (results.length % every === 0) timed.push({ tensor });
}
const runners = [before, after].map((network) => ({ run: (tensor) => network.time(tensor, 'skip').scores }));
const [fullMs, policyMs] = (await alternate(runners, timed, () => {})).map(latencyOf);
await Promise.all([before, after].map((network) => network.release()));

const { promise, expected } = JSON.parse(readFileSync(policy, 'utf8'));
const right = (key) => results.map((one) => one[key] === one.label);
const [was, is] = [right('full'), right('answer')];
const found = {
  ...{ limit: promise.limit, events: promise.events, certified: promise.items, items: results.length },
  expected: expected.multiplyAddsSkipped,
  saved: mean(results.map(({ saved }) => saved)),
  savedCi95: bootstrapOf(
    [{ role: 'policy', seed: 1, saved: results.map(({ saved }) => saved) }],
    'saved',
  )((of) => of('policy')).ci95,
  changed: mean(results.map(({ full, answer }) => Number(full !== answer))),
  ...(labelled && {
    accuracy: { before: mean(was.map(Number)), after: mean(is.map(Number)) },
    change: pairedChange(
      results.length,
      is.filter((ok, i) => ok && !was[i]).length,
      was.filter((ok, i) => ok && !is[i]).length,
    ),
  }),
  latency: { fullMs, policyMs },
};
const all = { ...readPublished(), [name]: found };
writePublished(all);
console.log(JSON.stringify(found, null, 1));
for (const { claim, measured, holds } of publishedClaims({ [name]: found }).filter(
  ({ measured }) => measured,
))
  console.log(`${holds ? 'holds' : 'FAILS'}  ${claim}: ${measured}`);
