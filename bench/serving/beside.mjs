// CPU time of a small request: `serve` beside Fastify with onnxruntime-node, on the same network and with the same client, in turn.
// CPU time is least affected by other processes; latencies aren't measured. Build first; npm ci --ignore-scripts in bench.
//   node bench/serving/beside.mjs [MODEL] [--rounds 5] [--seconds 5] [--warm 15]     MODEL: a folder, models/cifar10-resnet14 by default
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from '../../dist/index.js';
import { median, table } from '../harness.mjs';
import { Load } from './load.mjs';

const WIDTH = 16;
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    warm: { type: 'string', default: '15' },
  },
});
const [rounds, seconds, warm] = [values.rounds, values.seconds, values.warm].map(Number);
const [model = join(import.meta.dirname, '../../models/cifar10-resnet14')] = positionals;

const session = await InferenceSession.create(model, { threads: 1, policy: 'full' });
const [{ name: input, shape }] = session.inputMetadata;
const dims = [1, ...shape.slice(1)];
const size = dims.reduce((product, length) => product * length, 1);
const images = Array.from({ length: 32 }, (_, seed) =>
  Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 0.37)),
);
const answers = [];
for (const pixels of images) {
  const { [session.outputNames[0]]: scores } = await session.run({
    [input]: new Tensor('float32', pixels, dims),
  });
  answers.push(Buffer.from(scores.data.buffer, scores.data.byteOffset, scores.data.byteLength));
}
await session.release();

async function start(title, ...args) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise((done) => createInterface(child.stdout).once('line', done));
  const load = new Load(JSON.parse(line).url, basename(model), {
    ...{ input, dims, images, reference: { full: answers } },
  });
  /** Microseconds of CPU time, of the process and of its main thread; the kernel counts hundredths of a second. */
  const used = () =>
    ['stat', `task/${child.pid}/stat`].map((file) => {
      const [user, system] = readFileSync(`/proc/${child.pid}/${file}`, 'utf8')
        .replace(/.*\) /, '')
        .split(' ')
        .slice(11, 13);
      return 1e4 * (Number(user) + Number(system));
    });
  await load.closed(WIDTH, warm);
  const round = async () => {
    const before = used();
    const { answered, wrong } = await load.closed(WIDTH, seconds);
    const [all, main] = used().map((us, i) => (us - before[i]) / answered);
    return { all, main, answered, wrong };
  };
  const stop = () => {
    load.close();
    child.kill('SIGTERM');
  };
  return { title, round, stop, results: [] };
}

const cli = join(import.meta.dirname, '../../dist/cli/main.js');
const options = ['--port', '0', '--no-grpc-port', '--json', '--policy', 'full', '--threads', '2'];
const servers = [
  await start('residual-skip serve', cli, 'serve', model, ...options),
  await start(
    'Fastify, onnxruntime-node',
    join(import.meta.dirname, 'peer.mjs'),
    join(model, 'model.onnx'),
    basename(model),
  ),
];
for (let round = 0; round < rounds; round++)
  for (const { round: measure, results } of servers) results.push(await measure());
for (const { stop } of servers) stop();

const [own, peer] = servers.map(({ results }) => results);
const ratios = own.map(({ all }, i) => all / peer[i].all);
const rows = servers.map(({ title, results }) => [
  title,
  median(results.map(({ all }) => all)).toFixed(0),
  median(results.map(({ main }) => main)).toFixed(0),
  String(results.reduce((sum, { answered }) => sum + answered, 0)),
]);
console.log(table(['server', 'CPU time of a request, µs', 'of it the main thread', 'answers'], rows));
console.log(
  `\nserve takes ${median(ratios).toFixed(2)} times the CPU time of the other, by rounds ${ratios.map((ratio) => ratio.toFixed(2)).join(', ')}; wrong bits of its answers: ${own.reduce((sum, { wrong }) => sum + wrong, 0)}`,
);
