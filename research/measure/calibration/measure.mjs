// Calibrates the plain networks on the even-numbered test images and measures the policies on the odd-numbered ones, next
// to simple baselines at the same certified limit. Writes the tables of docs/lab/calibration.md.
//   node research/measure/calibration/measure.mjs                     all three data sets
//   node research/measure/calibration/measure.mjs mnist               only this one
//   node research/measure/calibration/measure.mjs mnist --model DIR   another network on its images
//   node research/measure/calibration/measure.mjs --latency           only the times of policies from an earlier run
//   node research/measure/calibration/measure.mjs --page              only the page, from earlier measurements

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { modelFolders, open, ROOT, readImages } from '../../../bench/networks.mjs';
import { NativeBackend } from '../../../dist/backends/native.js';
import { calibrateItems } from '../../../dist/calibrate/calibrate.js';
import { latencyReduction, Stopwatch } from '../../../dist/calibrate/run/latency.js';
import { split } from '../../../dist/calibrate/split.js';
import { compileModel } from '../../../dist/model/compile.js';
import { loadModel } from '../../../dist/model/load.js';
import { argMax } from '../../../dist/numeric/softmax.js';
import { bindFeeds } from '../../../dist/session/feeds.js';
import { decodeExits } from '../../../dist/skip/head-codec.js';
import { baselines, fullAnswers, mean } from './baselines.mjs';
import { writeTables } from './page.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(HERE, 'calibration.json');
const SETS = ['cifar10', 'fashion-mnist', 'mnist'];
const RULE = { limit: 0.01, delta: 0.05 };
const SEED = 1;
/** Limits on the timed part: each image runs with the policy and in full. */
const TIMED = { items: 2000, milliseconds: 15_000 };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: join(ROOT, '.cache', 'data') },
    model: { type: 'string' },
    latency: { type: 'boolean', default: false },
    page: { type: 'boolean', default: false },
  },
});

async function openNetwork(dataset, folder) {
  const network = await open(folder, 'full');
  const images = await readImages(network, values.data, dataset, 'test');
  const model = await loadModel(join(folder, 'model.onnx'));
  const program = compileModel(model, bindFeeds(model, network.feeds(images[0].tensor)).binding);
  await network.release();
  const items = images.map(({ image, tensor }) => {
    const { data } = tensor;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return {
      input: data,
      tensor,
      label: image.label,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    };
  });
  const half = (rest) => items.filter((_, i) => i % 2 === rest);
  return { model, program, even: half(0), odd: half(1), backend: new NativeBackend({ threads: 1 }) };
}

/** Runs the policy, guards included, as a session does. */
async function runPolicy(folder, policy, items) {
  const network = await open(folder, policy);
  const results = items.map(({ tensor }) => network.classify(tensor));
  await network.release();
  return results.map(({ scores, trace, multiplyAdds }) => ({
    answer: argMax(scores),
    saved: trace.multiplyAddsSkipped / multiplyAdds,
    bypassed: mean(trace.blocks.map(({ ran }) => (ran ? 0 : 1))),
  }));
}

async function measure(dataset, folder) {
  const { model, program, even, odd, backend } = await openNetwork(dataset, folder);
  const unlabelled = even.map(({ input, sha256 }) => ({ input, sha256 }));
  const start = performance.now();
  const { policy } = await calibrateItems(backend, program, model.sha256, unlabelled, { seed: SEED });
  const seconds = (performance.now() - start) / 1000;
  const test = odd.map(({ input }) => input);
  const full = await fullAnswers(backend, program, test);
  const results = await runPolicy(folder, policy, odd);
  const right = (answers) => mean(answers.map((answer, i) => Number(answer === odd[i].label)));
  const report = {
    dataset,
    network: basename(folder),
    folder: relative(HERE, folder),
    seconds: Math.round(seconds),
    promise: policy.promise,
    test: odd.length,
    accuracy: { full: right(full), policy: right(results.map(({ answer }) => answer)) },
    disagreement: mean(results.map(({ answer }, i) => Number(answer !== full[i]))),
    multiplyAddsSkipped: mean(results.map(({ saved }) => saved)),
    blocksBypassed: mean(results.map(({ bypassed }) => bypassed)),
    policy,
  };
  const parts = split(unlabelled, SEED);
  const inputs = (part) => parts[part].map(({ input }) => input);
  const others = policy.heads
    ? await baselines(
        backend,
        program,
        decodeExits(policy.heads),
        { order: [...inputs('fit'), ...inputs('order')], certify: inputs('certify'), test },
        RULE,
      )
    : {};
  report.baselines = Object.entries(others).map(([name, { saved, disagreement }]) => ({
    name,
    saved,
    disagreement,
  }));
  backend.release();
  return report;
}

/** Times of the policy and of the full network, alternating on the same images. */
async function time({ dataset, folder, policy }) {
  const { program, odd, backend } = await openNetwork(dataset, join(HERE, folder));
  const stopwatch = new Stopwatch(backend, program, []);
  const inputs = odd.map(({ input }) => input);
  const latency = stopwatch.time(decodeExits(policy.heads), inputs, TIMED);
  stopwatch.release();
  backend.release();
  return { ...latency, reduction: latencyReduction(latency) };
}

const reports = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : {};
const names = positionals.length > 0 ? positionals : SETS;
const save = () => writeFileSync(RESULTS, `${JSON.stringify(reports, null, 1)}\n`);
for (const name of values.page ? [] : names) {
  if (!values.latency) {
    const { latency } = reports[name] ?? {};
    reports[name] = { ...(await measure(name, values.model ?? modelFolders(name).plain)), latency };
  } else if (reports[name]?.policy.heads) reports[name].latency = await time(reports[name]);
  save();
  const { policy: _, promise: __, ...shown } = reports[name] ?? {};
  console.log(JSON.stringify(shown, null, 1));
}
writeTables(join(ROOT, 'docs', 'lab', 'calibration.md'), Object.values(reports));
