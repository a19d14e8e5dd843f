// Measures the server's capacity and the gain from elastic depth; writes docs/serving.svg and the measurements in
// docs/serving.md.
//
//   node bench/serving.mjs DATA           DATA: a folder of CIFAR-10 images
//   node bench/serving.mjs DATA --scale 0.5       with half of the usual times, which are 20 minutes in all
//   node bench/serving.mjs DATA --short   a trial of a minute that writes no page
//   node bench/serving.mjs DATA --only resnet18   one part, which writes no page: cifar, ramp or resnet18
//
// Build first. The networks and the policy are those of models. The load is generated on the same cores, by a program of bench/serving
// that a C++ compiler builds. What it and other programs take of the cores is counted out where answers are divided by the server's own
// CPU time.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ImageClassifier, InferenceSession, Tensor } from '../dist/index.js';
import { median } from './harness.mjs';
import { Load } from './serving/load.mjs';
import { writePage } from './serving/page.mjs';

const here = import.meta.dirname;
const CLI = join(here, '..', 'dist', 'cli', 'main.js');
const CIFAR = join(here, '..', 'models', 'cifar10-resnet14-exits');
const POLICY = join(CIFAR, 'policy.json');
const RESNET18 = join(here, '..', 'models', 'imagenette-resnet18');
const THREADS = availableParallelism();
const TARGET_MS = 50;
/** Queue length when latency is measured against a target; a longer queue would only add to the latency. */
const RAMP_QUEUE = 400;
/** Queue length under overload: about a tenth of a second of work. */
const QUEUE = 100;

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    short: { type: 'boolean', default: false },
    only: { type: 'string' },
    scale: { type: 'string', default: '1' },
  },
});
const PARTS = ['cifar', 'ramp', 'resnet18'];
const parts = PARTS.filter((part) => [part, undefined].includes(flags.only));
const [data] = positionals;
if (data === undefined || parts.length === 0) {
  console.error(`usage: node bench/serving.mjs DATA [--short] [--only ${PARTS.join('|')}]`);
  process.exit(2);
}
const say = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);
const scale = Number(flags.scale);
const seconds = flags.short
  ? { round: 0.5, warm: 1, half: 2, over: 4, ramp: 8, calm: 3 }
  : {
      ...{ round: 3 * scale, warm: 25 * scale, half: 60 * scale },
      ...{ over: 60 * scale, ramp: 76 * scale, calm: 10 * scale },
    };
/** Rounds in which `session.run` and the server are measured in turn, because a machine's speed changes; medians count. */
const ROUNDS = 5;
/** Ramps with and without elastic depth, in turn: one stall of the machine spoils the p99 of a step, so medians count. */
const RAMPS = flags.short ? 1 : 3;
/** Loads of the ramp, relative to the capacity at full depth. */
const RAMP = { from: 0.2, to: 2, steps: flags.short ? 4 : 19 };

const IMAGES = 1000;

function imagesIn(folder) {
  const files = readdirSync(folder, { recursive: true }).filter((name) => /\.(png|jpe?g)$/i.test(name));
  return files
    .sort()
    .slice(0, flags.short ? 100 : IMAGES)
    .map((name) => resolve(folder, name));
}

const nameOf = (model) => model.replace(/.*\/|\.onnx$/g, '');

/** Starts `serve` and waits until it listens. */
async function serve(model, ...args) {
  const child = spawn(
    process.execPath,
    [CLI, 'serve', model, '--port', '0', '--no-grpc-port', '--json', '--threads', String(THREADS), ...args],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const log = [];
  createInterface(child.stderr).on('line', (line) => log.push(line));
  const ended = new Promise((done) => child.on('exit', (code, signal) => done({ code, signal })));
  const first = new Promise((done) => createInterface(child.stdout).once('line', done));
  const listening = await Promise.race([first, ended]);
  if (typeof listening !== 'string') throw new Error(`the server didn't start: ${log.join('\n')}`);
  const { url } = JSON.parse(listening);
  const read = (file) => readFileSync(`/proc/${child.pid}/${file}`, 'utf8');
  const rssMiB = () => Number(/VmRSS:\s+(\d+)/.exec(read('status'))[1]) / 1024;
  /** CPU time in microseconds; the kernel counts it in hundredths of a second. */
  const cpuUs = () => {
    const [user, system] = read('stat').replace(/.*\) /, '').split(' ').slice(11, 13).map(Number);
    return 1e4 * (user + system);
  };
  const stop = async () => {
    child.kill('SIGTERM');
    const { code } = await ended;
    if (code !== 0) throw new Error(`the server ended with ${code}: ${log.slice(-5).join('\n')}`);
  };
  return { url, log, rssMiB, cpuUs, stop };
}

/** Scores of all images in one setting, as bytes, from `session.run` in this process. */
async function answersOf(session, input, dims, images, policy) {
  const answers = [];
  for (const pixels of images) {
    const { [session.outputNames[0]]: scores } = await session.run(
      { [input]: new Tensor('float32', pixels, dims) },
      { policy },
    );
    answers.push(Buffer.from(scores.data.buffer, scores.data.byteOffset, scores.data.byteLength));
  }
  return answers;
}

/** Rate and CPU time of `session.run` without a server, with one more concurrent run than there are threads. */
async function alone(session, input, dims, images) {
  let runs = 0;
  const start = performance.now();
  const before = process.cpuUsage();
  const worker = async () => {
    while (performance.now() - start < 1000 * seconds.round) {
      await session.run(
        { [input]: new Tensor('float32', images[runs % images.length], dims) },
        { policy: 'full' },
      );
      runs++;
    }
  };
  await Promise.all(Array.from({ length: THREADS + 1 }, worker));
  const { user, system } = process.cpuUsage(before);
  return { perSecond: (1000 * runs) / (performance.now() - start), cpuUs: (user + system) / runs };
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** Starts a server at full depth and warms it up. */
async function startFull(model, { input, dims, images, reference }) {
  const server = await serve(model, '--policy', 'full', '--max-waiting', String(QUEUE));
  const load = new Load(server.url, nameOf(model), { input, dims, images, reference });
  await load.closed(16, seconds.warm);
  const stop = () => {
    load.close();
    return server.stop();
  };
  /** One round of what it serves at most. */
  const atMost = async () => {
    const before = server.cpuUs();
    const outcomes = await load.closed(16, seconds.round);
    return { ...outcomes, serverUs: (server.cpuUs() - before) / outcomes.requests };
  };
  return { server, load, atMost, stop };
}

/** Measures capacity, latency at half of it, and overload at three times the capacity. */
async function bears(model, title, { input, dims, images, reference }, session) {
  const { server, load, atMost, stop } = await startFull(model, { input, dims, images, reference });
  const direct = [];
  const full = [];
  for (let round = 0; round < ROUNDS; round++) {
    direct.push(await alone(session, input, dims, images));
    full.push(await atMost());
  }
  const inProcess = median(direct.map(({ perSecond }) => perSecond));
  const capacity = median(full.map(({ perSecond }) => perSecond));
  const cpuUs = {
    alone: median(direct.map((one) => one.cpuUs)),
    server: median(full.map(({ serverUs }) => serverUs)),
    load: median(full.map((one) => one.cpuUs / one.requests)),
  };
  const rounds = full.map(({ perSecond }, i) => perSecond / direct[i].perSecond);
  say(
    `${title}: ${inProcess.toFixed(0)} runs a second in process, ${capacity.toFixed(0)} requests a second served; by rounds ${rounds.map((share) => share.toFixed(2))}; CPU time per request ${JSON.stringify(cpuUs)} us`,
  );
  const [half] = await load.open(capacity / 2, capacity / 2, seconds.half);
  const serviceMs = (1000 * THREADS) / inProcess;
  say(
    `half of that: p99 is ${half.p99Ms.toFixed(1)} ms, a run on one thread takes ${serviceMs.toFixed(1)} ms`,
  );
  const { over, outcomes } = await overload(server, load, atMost, capacity);
  say(
    `three times that: ${JSON.stringify(over.statuses)}, goodput ${over.goodput.toFixed(0)}, by the server's CPU time ${over.rounds.map((share) => share.toFixed(2))}`,
  );
  await stop();
  const all = [...full, half, ...outcomes];
  return {
    title,
    ...{ inProcess, capacity, rounds, cpuUs, serviceMs, halfP99Ms: half.p99Ms, over },
    requests: sum(all.map(({ requests }) => requests)),
    wrong: sum(all.map(({ wrong }) => wrong)),
    unanswered: sum(all.map(({ statuses }) => statuses[0] ?? 0)),
  };
}

/**
 * Overload and the highest load that is served, in turn. `rounds`: answers for a second of the server's CPU time under overload, as
 * a share of those without.
 */
async function overload(server, load, atMost, capacity) {
  const memory = [];
  const sampler = setInterval(() => memory.push(server.rssMiB()), 500);
  const outcomes = [];
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = server.cpuUs();
    const [over] = await load.open(3 * capacity, 3 * capacity, seconds.over / ROUNDS);
    const usOver = (server.cpuUs() - before) / over.answered;
    const most = await atMost();
    outcomes.push(over, most);
    rounds.push(most.serverUs / usOver);
  }
  clearInterval(sampler);
  const overloads = outcomes.filter((_, i) => i % 2 === 0);
  const statuses = {};
  for (const one of overloads)
    for (const [status, count] of Object.entries(one.statuses))
      statuses[status] = (statuses[status] ?? 0) + count;
  const memoryMiB = { afterAThird: memory[Math.floor(memory.length / 3)], atTheEnd: memory.at(-1) };
  const goodput = median(overloads.map(({ perSecond }) => perSecond));
  return { over: { seconds: seconds.over, statuses, goodput, rounds, memoryMiB }, outcomes };
}

/** A ramp of load, followed by a calm period. */
async function ramp(capacity, feeds, ...args) {
  const server = await serve(CIFAR, '--max-waiting', String(RAMP_QUEUE), ...args);
  const load = new Load(server.url, nameOf(CIFAR), feeds);
  await load.closed(16, seconds.warm);
  // The setting is full again when the ramp begins.
  await load.open(RAMP.from * capacity, RAMP.from * capacity, seconds.calm);
  const parts = await load.open(RAMP.from * capacity, RAMP.to * capacity, seconds.ramp, RAMP.steps);
  const [calm] = await load.open(RAMP.from * capacity, RAMP.from * capacity, seconds.calm);
  const after = await load.closed(1, 0.1);
  load.close();
  await server.stop();
  const changes = server.log.flatMap((line) =>
    line.includes('"event":"setting"') ? [JSON.parse(line)] : [],
  );
  return {
    steps: parts.map((part, i) => ({
      load: RAMP.from + ((RAMP.to - RAMP.from) * (i + 0.5)) / RAMP.steps,
      p50Ms: part.p50Ms,
      p99Ms: part.p99Ms,
      refused: (part.statuses[429] ?? 0) / part.requests,
      saved: part.saved / part.answered,
      settings: part.settings,
    })),
    changes: changes.length,
    after: Object.keys(after.settings),
    requests: parts.reduce((sum, part) => sum + part.requests, 0) + calm.requests + after.requests,
    wrong: parts.reduce((sum, part) => sum + part.wrong, 0) + calm.wrong + after.wrong,
  };
}

/** What happens with the CIFAR network: in full, and in the setting of its policy. */
async function measureCifar() {
  const files = imagesIn(data);
  say(`answers of ${files.length} images in each setting`);
  const classifier = await ImageClassifier.from(CIFAR, { threads: THREADS });
  const images = [];
  for (const file of files) images.push((await classifier.prepare(file)).data);
  const policy = JSON.parse(readFileSync(POLICY, 'utf8'));
  const cifar = { input: classifier.session.inputNames[0], dims: [1, 3, 32, 32], images, reference: {} };
  for (const [name, one] of Object.entries({ full: 'full', [policy.promise.limit]: policy }))
    cifar.reference[name] = await answersOf(classifier.session, cifar.input, cifar.dims, images, one);
  const measured = parts.includes('cifar')
    ? [await bears(CIFAR, nameOf(CIFAR), cifar, classifier.session)]
    : [];
  await classifier.release();
  return { measured, ramp: await measureRamp(measured[0]?.capacity, cifar) };
}

async function measureRamp(known, cifar) {
  if (!parts.includes('ramp')) return undefined;
  let capacity = known;
  if (capacity === undefined) {
    const { atMost, stop } = await startFull(CIFAR, cifar);
    capacity = (await atMost()).perSecond;
    await stop();
  }
  say(
    `the ramp to ${RAMP.to} times ${capacity.toFixed(0)} a second, with the target of ${TARGET_MS} ms and without`,
  );
  const elastic = [];
  const fixed = [];
  for (let round = 0; round < RAMPS; round++) {
    elastic.push(await ramp(capacity, cifar, '--policy', POLICY, '--target-p99', `${TARGET_MS}ms`));
    fixed.push(await ramp(capacity, cifar, '--policy', 'full'));
  }
  return { elastic: combined(elastic), fixed: combined(fixed) };
}

/** Medians of the steps of equal ramps, and the sums of their counts; `each` has the p99 and refusals of the single ramps. */
function combined(ramps) {
  const steps = ramps[0].steps.map(({ load }, i) => {
    const parts = ramps.map(({ steps }) => steps[i]);
    const names = [...new Set(parts.flatMap(({ settings }) => Object.keys(settings)))];
    return {
      load,
      p50Ms: median(parts.map(({ p50Ms }) => p50Ms)),
      p99Ms: median(parts.map(({ p99Ms }) => p99Ms)),
      refused: median(parts.map(({ refused }) => refused)),
      saved: median(parts.map(({ saved }) => saved)),
      settings: Object.fromEntries(
        names.map((name) => [name, sum(parts.map(({ settings }) => settings[name] ?? 0))]),
      ),
    };
  });
  return {
    steps,
    each: ramps.map(({ steps }) => steps.map(({ load, p99Ms, refused }) => ({ load, p99Ms, refused }))),
    changes: ramps.map(({ changes }) => changes),
    after: [...new Set(ramps.flatMap(({ after }) => after))],
    requests: sum(ramps.map(({ requests }) => requests)),
    wrong: sum(ramps.map(({ wrong }) => wrong)),
  };
}

async function measureResnet18() {
  const session = await InferenceSession.create(RESNET18, { threads: THREADS });
  const [{ name: input, shape }] = session.inputMetadata;
  const photos = { input, dims: [1, ...shape.slice(1)], reference: {} };
  const size = photos.dims.reduce((product, length) => product * length, 1);
  photos.images = Array.from({ length: 8 }, (_, seed) =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 0.01)),
  );
  photos.reference.full = await answersOf(session, photos.input, photos.dims, photos.images, 'full');
  const measured = await bears(RESNET18, nameOf(RESNET18), photos, session);
  await session.release();
  return measured;
}

const [{ model: cpu }] = cpus();
/** Programs that ran or waited for a core in the minute before. */
const [busy] = loadavg();
const cifar = flags.only === 'resnet18' ? { measured: [] } : await measureCifar();
const results = { threads: THREADS, cpu, busy, warmSeconds: seconds.warm, targetMs: TARGET_MS, ...cifar };
if (parts.includes('resnet18')) results.measured.push(await measureResnet18());
console.log(JSON.stringify(results, null, 2));
if (!flags.short && flags.only === undefined) {
  writeFileSync(join(here, 'serving.json'), JSON.stringify(results));
  await writePage(results);
}
