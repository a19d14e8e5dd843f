// Measurements of single properties, as data: each case has variants that take turns. Build first.
//   node bench/cases.mjs                        lists the cases
//   node bench/cases.mjs CASE [MODEL] [--rounds N] [--isa ISA] [--threads N] [--tokens N] [--policy POLICY] [--json]
// Prints the medians and means of wall-clock and CPU time of one run, and the ratios to the first variant's in the same round with
// 95 % intervals. The first variant is what the others are compared with.
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { auditLog, InferenceSession, loadPolicy, Tensor } from '../dist/index.js';
import { mean } from '../dist/numeric/statistics.js';
import { feedsOf, inRow, inRowSync, median, ratioOf, table, takeTurns, timed } from './harness.mjs';
import { operators } from './operators.mjs';
import { photographs } from './photographs.mjs';
import { published } from './published.mjs';
import { newLengths, textBatch } from './texts.mjs';

/** onnxruntime-node, from this folder unless RESIDUAL_SKIP_ONNXRUNTIME names another. */
const onnxruntime = () =>
  createRequire(process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? import.meta.url)('onnxruntime-node');

const wave = (length, step = 1) => Float32Array.from({ length }, (_, i) => Math.sin(step * i));

/** feedsOf with waves for floats, as zeros may take another path. */
function wavesOf(session, tokens) {
  const feeds = feedsOf(session, tokens);
  for (const { type, data } of Object.values(feeds)) if (type === 'float32') data.set(wave(data.length));
  return feeds;
}

/** Is time proportional to work? More and more blocks are skipped, spread over the network so that every stage loses some. */
async function skipping(model, { tokens, isa }) {
  const session = await InferenceSession.create(model, { threads: 1, policy: 'full', isa });
  const feeds = wavesOf(session, session.inputNames.includes('input_ids') ? tokens : undefined);
  session.runSync(feeds);
  // A network of texts has blocks, and their shares, once it knows a length.
  const { blocks } = session;
  const skippable = blocks.filter((block) => block.skippable).map(({ index }) => index);
  const step = Math.max(1, Math.floor(skippable.length / 6));
  const counts = Array.from({ length: Math.ceil(skippable.length / step) }, (_, i) => i * step);
  const under = (source) => {
    const policy = loadPolicy(source);
    return inRowSync(() => session.runSync(feeds, { policy }));
  };
  const variants = [...counts, skippable.length].map((count) => {
    const skipped = Array.from(
      { length: count },
      (_, i) => skippable[Math.floor((i * skippable.length) / count)],
    );
    const work = 1 - skipped.reduce((sum, index) => sum + blocks[index].share, 0);
    const modes = Object.fromEntries(skipped.map((index) => [index, 'skip']));
    const title = `${count} of ${blocks.length} blocks skipped, ${(100 * work).toFixed(1)} % of the multiply-adds`;
    return { title, runs: under({ default: 'run', blocks: modes }) };
  });
  const gated = blocks.filter(({ gate }) => gate);
  if (gated.length > 0) {
    const always = ({ gate: { compare } }) => (compare === 'gt' || compare === 'ge' ? -3e38 : 3e38);
    const asked = Object.fromEntries(gated.map((block) => [block.index, { threshold: always(block) }]));
    const title = `all blocks run, and ${gated.length} gates are asked`;
    variants.push({ title, runs: under({ default: 'run', blocks: asked }) });
  }
  return { variants, close: () => session.release() };
}

/** An 8-bit network NAME.int8.onnx beside the float network NAME.onnx, and beside onnxruntime-node on the same file. */
async function int8(model, { isa }) {
  const small = model.replace(/\.onnx$/, '.int8.onnx');
  const own = (file) => InferenceSession.create(file, { threads: 1, policy: 'full', isa });
  const sessions = [await own(small), await own(model)];
  const feeds = wavesOf(sessions[0]);
  const ort = onnxruntime();
  const peer = await ort.InferenceSession.create(small, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const peerFeeds = Object.fromEntries(
    Object.entries(feeds).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]),
  );
  const variants = [
    { title: '8 bits', runs: inRowSync(() => sessions[0].runSync(feeds)) },
    { title: 'float32', runs: inRowSync(() => sessions[1].runSync(feeds)) },
    { title: 'onnxruntime-node, 8 bits', runs: inRow(() => peer.run(peerFeeds)) },
  ];
  return { variants, close: () => Promise.all([...sessions, peer].map((each) => each.release())) };
}

/** Two overlapping runs on two threads beside one run after the other on one. */
async function concurrency(model, { isa }) {
  const sessions = [];
  for (const threads of [1, 2]) sessions.push(await InferenceSession.create(model, { threads, isa }));
  const [single, pair] = sessions;
  const feeds = wavesOf(single);
  const series = inRow(() => pair.run(feeds));
  const variants = [
    { title: 'one run', runs: inRow(() => single.run(feeds)) },
    { title: 'two at once', runs: (count) => Promise.all([series(count), series(count)]) },
  ];
  return { variants, close: () => Promise.all(sessions.map((session) => session.release())) };
}

/** An audit log at full rate; `again` repeats the first variant, to show the noise. */
async function audit(model, { threads, policy = 'model' }) {
  const folder = mkdtempSync(join(tmpdir(), 'audit-cost-'));
  const log = (inputs) => auditLog({ path: join(folder, `${inputs}.ndjson`), inputs });
  const logs = [log('hash'), log('none')];
  const sessions = [];
  const variants = [];
  for (const [title, observers] of [
    ['without a log', []],
    ['with the log', [logs[0]]],
    ['with the log, inputs not hashed', [logs[1]]],
    ['again without', []],
  ]) {
    const session = await InferenceSession.create(model, { threads, policy, observers });
    const images = Array.from({ length: 400 }, (_, seed) =>
      Object.fromEntries(
        Object.entries(feedsOf(session)).map(([name, { data, dims }]) => [
          name,
          new Tensor('float32', wave(data.length, 0.01 * (seed + 1)), dims),
        ]),
      ),
    );
    let next = 0;
    sessions.push(session);
    variants.push({ title, runs: inRow(() => session.run(images[next++ % images.length])) });
  }
  const close = async () => {
    await Promise.all(sessions.map((session) => session.release()));
    const lost = logs.reduce((sum, each) => sum + each.stats().auditLog.lost, 0);
    rmSync(folder, { recursive: true });
    return `${lost} items of the logs were lost`;
  };
  return { variants, close };
}

/** What three sessions take of a core after some runs, in ten seconds of nothing; the first milliseconds show how long workers spin. */
async function idle(model) {
  const sessions = await Promise.all([1, 2, 3].map(() => InferenceSession.create(model, { policy: 'full' })));
  for (let i = 0; i < 20; i++) await Promise.all(sessions.map((session) => session.run(feedsOf(session))));
  const used = async (ms) => {
    const before = process.cpuUsage();
    const passed = await timed(() => sleep(ms));
    const { user, system } = process.cpuUsage(before);
    return { ms: (user + system) / 1000, share: (user + system) / 10 / passed };
  };
  const [first, later] = [await used(100), await used(10_000)];
  await Promise.all(sessions.map((session) => session.release()));
  return [
    `the first 100 ms after a run: ${first.ms.toFixed(2)} ms of CPU time`,
    `the next 10 s: ${later.ms.toFixed(2)} ms, ${later.share.toFixed(3)} % of a core`,
  ];
}

/**
 * `open(model, options)` gives the variants, and `close()`, which may return a note. `turns` are those of takeTurns. A case is
 * opened `times` times where the placement of sessions in memory changes times. What has no variants gives its own lines by `measure`.
 */
const CASES = {
  skipping: {
    about: 'time against multiply-adds as blocks are skipped; cost of the gates',
    model: 'models/mnist-resnet20-gates',
    open: skipping,
  },
  int8: {
    about: '8 bits beside float32 and onnxruntime-node',
    model: 'bench/models/resnet18.onnx',
    open: int8,
  },
  concurrency: { about: 'two runs at once', model: 'bench/models/resnet50.onnx', open: concurrency },
  audit: {
    about: 'cost of an audit log at full rate',
    model: 'test/models/cifar10-resnet32/model.onnx',
    open: audit,
    // In the pause the log writes the rest, whose CPU time counts.
    turns: { turnMs: 150, settleMs: 120 },
    times: 5,
  },
  texts: {
    about: 'a batch of texts, each at its own length, beside onnxruntime-node, which fills them up',
    model: 'bench/models/minilm_l6.onnx',
    open: (model, options) => textBatch(model, options, onnxruntime()),
    turns: { turnMs: 1 },
  },
  lengths: {
    about: 'the first run of each length of a text beside the fastest of three more',
    model: 'bench/models/minilm_l6.onnx',
    measure: newLengths,
  },
  idle: {
    about: 'CPU time of a process with three loaded models and no runs',
    model: 'test/models/cifar10-resnet32/model.onnx',
    measure: idle,
  },
  operators: {
    about: 'single operators beside onnxruntime-node; MODEL is a part of their names',
    model: '',
    measure: (part, options) => operators(part, options, onnxruntime()),
  },
  photographs: {
    about: 'JPEG to label beside sharp with onnxruntime-node, at two sizes',
    model: 'bench/models/mobilenet_v2.onnx',
    measure: (model, options) => photographs(model, options, onnxruntime()),
  },
  published: {
    about:
      'networks that others publish beside onnxruntime-node; MODEL: folders with them, separated by commas',
    model: '',
    measure: (folders, options) => published(folders, options, onnxruntime()),
  },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '24' },
    isa: { type: 'string' },
    threads: { type: 'string', default: '1' },
    tokens: { type: 'string', default: '128' },
    policy: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const [name, model = CASES[name]?.model] = positionals;
if (!Object.hasOwn(CASES, name ?? '')) {
  console.error(`Usage: node bench/cases.mjs CASE [MODEL]\n`);
  for (const [each, { about }] of Object.entries(CASES)) console.error(`  ${each.padEnd(12)}${about}`);
  process.exit(2);
}

const { open, measure, turns, times = 1 } = CASES[name];
if (measure) {
  for (const line of await measure(model, values)) console.log(line);
  process.exit();
}
const options = { ...values, threads: Number(values.threads), tokens: Number(values.tokens) };
const notes = [];
let variants = [];
for (let time = 0; time < times; time++) {
  const opened = await open(model, options);
  await takeTurns(opened.variants, { rounds: Number(values.rounds), ...turns });
  const before = variants;
  variants = opened.variants.map(({ title, turns: own }, i) => ({
    title,
    turns: [...(before[i]?.turns ?? []), ...own],
  }));
  notes.push(await opened.close());
}

const [base] = variants;
const results = variants.map((variant) => {
  const figures = { title: variant.title };
  for (const key of ['ms', 'cpuMs']) {
    const times = variant.turns.map((turn) => turn[key]);
    figures[key] = median(times);
    figures[`${key}Mean`] = mean(times);
    figures[`${key}Ratio`] = ratioOf(variant, base, key);
  }
  return figures;
});
if (values.json) console.log(JSON.stringify(results));
else {
  const ratio = ([middle, low, high]) => `${middle.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  const rows = results.map(({ title, ms, msMean, msRatio, cpuMs, cpuMsMean, cpuMsRatio }) => [
    title,
    ms.toFixed(4),
    msMean.toFixed(4),
    ratio(msRatio),
    cpuMs.toFixed(4),
    cpuMsMean.toFixed(4),
    ratio(cpuMsRatio),
  ]);
  console.log(table([`${name}, ${model}`, 'ms', 'mean', 'ratio', 'CPU ms', 'mean', 'ratio'], rows));
  for (const note of new Set(notes.filter((each) => typeof each === 'string'))) console.log(note);
}
