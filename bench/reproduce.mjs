// Measures the shipped networks on whole test sets, one item at a time on one thread, and checks what they claim. MNIST is
// fetched; the other data sets are measured where --data has them. If the peers are installed (cd bench && npm ci
// --ignore-scripts), onnxruntime-node is measured too.
//   npm run reproduce                           exits with 1 if a claim fails, and names it
//   npm run reproduce -- --data DIR             DIR has cifar10, fashion-mnist, imagenette, mnist, sst2, or some of them
//   npm run reproduce -- mnist --limit 200      a trial of one data set: nothing is claimed of a part of the test items
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { latencyOf, pairedChange } from '../dist/measure/statistics.js';
import { argMax } from '../dist/numeric/softmax.js';
import { mean } from '../dist/numeric/statistics.js';
import { cardFigures, claimsOf } from './claims.mjs';
import { alternate, bars, table, wordChange } from './harness.mjs';
import {
  modelFolders,
  onnxruntime,
  open,
  openOnnxruntime,
  partPath,
  pytorchDecisions,
  ROOT,
  readImages,
  SETS,
} from './networks.mjs';

/** Flags that were here once, and what does their work. */
const GONE = {
  protocol: 'node research/measure/reproduce.mjs DIR',
  part: 'node research/measure/reproduce.mjs DIR --part PART',
  cards: 'node research/measure/reproduce.mjs DIR --cards DIR',
  page: 'nothing: the command writes no page; docs/lab/reproduction.md keeps the earlier results',
};
const USAGE = `Usage: npm run reproduce -- [${Object.keys(SETS).join('|')} ...] [--data DIR] [--limit N]`;

function refuse(message) {
  console.error(message);
  process.exit(2);
}

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { data: { type: 'string', default: join(ROOT, '.cache', 'data') }, limit: { type: 'string' } },
    });
  } catch (error) {
    const gone = Object.keys(GONE).find((name) =>
      process.argv.some((arg) => arg.split('=')[0] === `--${name}`),
    );
    return refuse(gone ? `--${gone} is gone; use ${GONE[gone]}` : `${error.message}\n${USAGE}`);
  }
}

const { values, positionals } = options();
const { data } = values;
const limit = values.limit === undefined ? undefined : Number(values.limit);
const valid = positionals.every((name) => Object.hasOwn(SETS, name));
if (!valid || (limit !== undefined && !(Number.isInteger(limit) && limit > 0))) refuse(USAGE);

const share = (flags) => mean(flags.map(Number));
const INT8 = 'model.int8.onnx';

/** The networks of a data set, by what they are called in the report, with a policy each. */
function runsOf({ plain, skipping }) {
  const policy = join(skipping, 'policy.json');
  const [small, smallPolicy] = [INT8, 'policy.int8.json'].map((file) => join(skipping, file));
  const smallPlain = join(plain, INT8);
  const runs = {
    plain: { title: 'the plain twin', model: plain, policy: 'full' },
    full: { title: 'the network in full', model: skipping, policy: 'full' },
    skipping: {
      title: 'the network that skips',
      model: skipping,
      policy: existsSync(policy) ? policy : 'model',
    },
  };
  if (existsSync(small))
    runs.int8 = {
      title: 'its 8-bit form that skips',
      model: small,
      policy: existsSync(smallPolicy) ? smallPolicy : 'model',
    };
  if (existsSync(smallPlain))
    runs.plainInt8 = { title: 'the plain twin in 8 bits', model: smallPlain, policy: 'full' };
  return runs;
}

/** Answers, saved work and decisions of a network with its policy. */
function classifyAll(network, images, advance) {
  return images.map(({ image, tensor }) => {
    const { scores, trace, multiplyAdds, layers } = network.classify(tensor);
    const answer = argMax(scores);
    advance(1);
    return {
      answer,
      right: answer === image.label,
      ran: trace.blocks.map(({ ran }) => ran),
      saved: trace.multiplyAddsSkipped / multiplyAdds,
      layers: trace.layersSkipped / layers,
    };
  });
}

/** What each policy promises, and how many of the items break it. */
function promisesOf(runs, results) {
  return Object.entries(runs).flatMap(([name, { policy }]) => {
    if (!policy?.endsWith('.json')) return [];
    const { promise } = JSON.parse(readFileSync(policy, 'utf8'));
    const lost = promise.metric === 'accuracy';
    const count = (test) => results[name].filter((one, i) => test(one, results.full[i])).length;
    const losses = count(({ answer, right }, full) => (lost ? full.right && !right : answer !== full.answer));
    // Older promises are about losses alone.
    const net = promise.gained !== undefined;
    const gained = net ? count(({ right }, full) => right && !full.right) : undefined;
    const what = lost
      ? `right ones that are lost${net ? ', less those gained' : ''}`
      : 'others than those in full';
    return [
      {
        file: policy.split('/').at(-1),
        what,
        losses,
        gained,
        items: results[name].length,
        limit: promise.limit,
      },
    ];
  });
}

function compareDecisions(folder, gates, results) {
  const pytorch = pytorchDecisions(folder);
  if (!pytorch || pytorch.images !== results.length) return undefined;
  const differing = results.flatMap(({ ran }, image) =>
    gates.some((block, position) => pytorch.ran(image, position) !== Number(ran[block])) ? [image] : [],
  );
  const unexplained = differing.filter((image) => !pytorch.near.has(image)).length;
  return { images: results.length, near: pytorch.near.size, unexplained };
}

async function measure(dataset, progress) {
  const folders = modelFolders(dataset);
  const runs = runsOf(folders);
  const networks = [];
  for (const { model, policy } of Object.values(runs)) networks.push(await open(model, policy));
  const [first] = networks;
  const images = await readImages(first, data, dataset, 'test', limit);
  const results = {};
  progress(`${dataset}: answers`, images.length * networks.length);
  for (const [i, name] of Object.keys(runs).entries()) {
    results[name] = classifyAll(networks[i], images, progress.advance);
    const all = results[name];
    runs[name].accuracy = share(all.map(({ right }) => right));
    for (const key of ['saved', 'layers']) runs[name][key] = mean(all.map((one) => one[key]));
  }
  const runners = networks.map((network) => ({ run: (tensor) => network.time(tensor, 'skip').scores }));
  const peer = onnxruntime();
  for (const [name, folder] of peer ? Object.entries(folders) : []) {
    runs[`onnxruntime ${name}`] = { title: `onnxruntime-node ${peer.version}, ${folder.split('/').at(-1)}` };
    runners.push(await openOnnxruntime(peer, folder, (tensor) => first.feeds(tensor)));
  }
  progress(`${dataset}: times`, images.length);
  // A session compiles for each length of a text when it first gets one; that isn't part of a text's latency.
  if (first.model.what === 'text')
    for (const { run } of runners) for (const { tensor } of images) await run(tensor);
  const times = await alternate(runners, images, () => {}, progress.advance);
  for (const [k, run] of Object.values(runs).entries())
    Object.assign(run, {
      latency: latencyOf(times[k]),
      turns: runners[k].turns,
      cpuMs: runners[k].turns.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / images.length,
    });
  const gates = networks[2].blocks.filter(({ gate }) => gate).map(({ index }) => index);
  const report = {
    card: cardFigures(readFileSync(join(folders.skipping, 'README.md'), 'utf8')),
    runs,
    promises: promisesOf(runs, results),
    decisions: compareDecisions(folders.skipping, gates, results.skipping),
    cut: SETS[dataset].cut,
    change: pairedChange(
      images.length,
      ...[
        ['skipping', 'plain'],
        ['plain', 'skipping'],
      ].map(
        ([one, other]) => results[one].filter(({ right }, i) => right && !results[other][i].right).length,
      ),
    ),
    items: images.length,
    isa: first.session.isa,
  };
  for (const network of [...networks, ...runners]) await network.release?.();
  return report;
}

function print(dataset, { runs, items, isa, change }) {
  const percent = (value, digits) => (value === undefined ? '' : `${(100 * value).toFixed(digits)} %`);
  const rows = Object.values(runs).map(({ title, accuracy, saved, layers, latency, cpuMs }) => [
    title,
    percent(accuracy, 2),
    percent(saved, 1),
    percent(layers, 1),
    latency.p50.toFixed(3),
    latency.mean.toFixed(3),
    cpuMs.toFixed(3),
  ]);
  const head = [`${SETS[dataset].title}, ${items} test items, ${isa}`, 'accuracy', 'multiply-adds saved'];
  console.log(`\n${table([...head, 'layers bypassed', 'p50, ms', 'mean, ms', 'CPU, ms'], rows)}\n`);
  console.log(`accuracy of the network that skips, less that of the plain twin: ${wordChange(change)}`);
}

const chosen = positionals.length > 0 ? positionals : Object.keys(SETS);
if (chosen.includes('mnist') && !existsSync(partPath(data, 'mnist', 'test')))
  execFileSync(process.execPath, [join(ROOT, 'scripts/fetch-data.mjs'), 'mnist', '--to', data], {
    stdio: 'inherit',
  });
const atHand = chosen.filter((name) => existsSync(partPath(data, name, 'test')));
const absent = chosen.filter((name) => !atHand.includes(name));
if (positionals.length > 0 && absent.length > 0)
  refuse(`${partPath(data, absent[0], 'test')} is not there; --data names the folder of the data sets`);
console.log(`One item at a time on one thread of ${cpus()[0]?.model.trim() ?? 'an unknown CPU'}`);
let failed = 0;
for (const dataset of atHand) {
  const progress = bars();
  const report = await measure(dataset, progress);
  progress.stop();
  print(dataset, report);
  for (const { claim, measured, holds } of limit === undefined ? claimsOf(report) : []) {
    console.log(`${holds ? 'holds' : 'FAILS'}  ${SETS[dataset].title}: ${claim}: ${measured}`);
    if (!holds) failed++;
  }
}
if (absent.length > 0) console.log(`\nnot measured, as ${data} doesn't have them: ${absent.join(', ')}`);
process.exitCode = failed === 0 ? 0 : 1;
