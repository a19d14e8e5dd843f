// Where the time of a REST request goes on the server's main thread, by stages: each sample of V8's profiler counts for the innermost
// function that belongs to one. It counts while the thread waits for a core, too, so measure on an idle machine. Build first.
//   node bench/serving/stages.mjs [MODEL] [--seconds 10] [--warm 10]     MODEL: a folder, models/cifar10-resnet14 by default
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from '../../dist/index.js';
import { table } from '../harness.mjs';
import { Load } from './load.mjs';

/** From the first that fits a function's name and file. */
const STAGES = [
  ['engine, on this thread', /^(here|runSync|there|start) .*backends|run-queue/],
  ['session', /dist\/(session|skip|tensor|backends|util)\//],
  ['answer to JSON and bytes', /^(formatInferResponse|send|packed) /],
  ['read JSON and tensors', /server\/dist\/(rest-format|json|datatypes|parameters)\.js/],
  ['check the request', /server\/dist\/(infer|request|repository|model|settings)\.js/],
  ['queue', /server\/dist\/(queue|call|shares|turns)\.js/],
  [
    'metrics and logs',
    /server\/dist\/(metrics|histogram|live|failures|elastic|tracing|promise-monitor|audit)\.js/,
  ],
  ['route and authenticate', /server\/dist\/(app|rest-infer|auth|control|caller)\.js/],
  ['read the body', /server\/dist\/bodies\.js|streams\/readable|_http_incoming/],
  ['write to the socket', /stream_base_commons|streams\/writable|_http_outgoing|^(writeHead|end) /],
  ['read and parse HTTP', /node:_http|node:net|^parserOn/],
  ['timers and turns', /node:internal\/(timers|process\/task_queues)/],
  ['collections of garbage', /^\(garbage collector\)/],
];
const OTHER = 'other';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '10' }, warm: { type: 'string', default: '10' } },
});
const [model = join(import.meta.dirname, '../../models/cifar10-resnet14')] = positionals;

const session = await InferenceSession.create(model, { threads: 1, policy: 'full' });
const [{ name: input, shape }] = session.inputMetadata;
const dims = [1, ...shape.slice(1)];
const pixels = new Float32Array(dims.reduce((product, length) => product * length, 1)).fill(0.5);
const { [session.outputNames[0]]: scores } = await session.run({
  [input]: new Tensor('float32', pixels, dims),
});
const answer = Buffer.from(scores.data.buffer, scores.data.byteOffset, scores.data.byteLength);
await session.release();

const folder = mkdtempSync(join(tmpdir(), 'stages-'));
const profiler = ['--cpu-prof', '--cpu-prof-interval', '200', '--cpu-prof-dir', folder];
const cli = join(import.meta.dirname, '../../dist/cli/main.js');
const options = ['--port', '0', '--no-grpc-port', '--json', '--policy', 'full', '--threads', '2'];
const child = spawn(process.execPath, [...profiler, cli, 'serve', model, ...options], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const line = await new Promise((done) => createInterface(child.stdout).once('line', done));
const load = new Load(JSON.parse(line).url, basename(model), {
  ...{ input, dims, images: [pixels], reference: { full: [answer] } },
});
await load.closed(16, Number(values.warm));
const began = performance.now();
const { answered } = await load.closed(16, Number(values.seconds));
const measured = performance.now() - began;
load.close();
const ended = new Promise((done) => child.once('close', done));
child.kill('SIGTERM');
await ended;
const sinceBegan = performance.now() - began;

const [file] = readdirSync(folder);
const { nodes, samples, timeDeltas, endTime } = JSON.parse(readFileSync(join(folder, file), 'utf8'));
rmSync(folder, { recursive: true });
const byId = new Map(nodes.map((node) => [node.id, node]));
const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
const nameOf = ({ callFrame: { functionName, url } }) => `${functionName} ${url}`;

/** By node of the profile. */
const known = new Map();
function stageOf(id) {
  if (!known.has(id)) {
    const name = nameOf(byId.get(id));
    const parent = parents.get(id);
    const [own] = STAGES.find(([, pattern]) => pattern.test(name)) ?? [];
    known.set(id, own ?? (parent === undefined ? OTHER : stageOf(parent)));
  }
  return known.get(id);
}

const from = endTime - 1000 * sinceBegan;
const to = from + 1000 * measured;
const times = new Map();
let at = endTime - timeDeltas.reduce((sum, us) => sum + us, 0);
for (const [i, id] of samples.entries()) {
  at += timeDeltas[i];
  if (at < from || at > to || nameOf(byId.get(id)).startsWith('(idle)')) continue;
  const stage = stageOf(id);
  times.set(stage, (times.get(stage) ?? 0) + timeDeltas[i]);
}
const sorted = [...times].sort(([, a], [, b]) => b - a);
const all = sorted.reduce((sum, [, us]) => sum + us, 0);
const rows = [...sorted, ['all', all]].map(([stage, us]) => [stage, (us / answered).toFixed(1)]);
console.log(table(['stage', 'µs of a request'], rows));
console.log(`\n${answered} requests of ${basename(model)}`);
