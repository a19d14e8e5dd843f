// The speed of 8-bit networks beside the same networks in float32 on this package and beside onnxruntime-node on the same
// 8-bit file: one item, one thread, alternating in one process. First build, export the networks of both kinds
// (python3 bench/export_models.py --int8) and install the peers (cd bench && npm ci --ignore-scripts).
//   node bench/int8.mjs [--isa NAME] [--rounds N] [NETWORK...]
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as ort from 'onnxruntime-node';
import { InferenceSession, Tensor } from '../dist/index.js';

const MODELS = join(dirname(fileURLToPath(import.meta.url)), 'models');
const NETWORKS = ['resnet18', 'resnet50', 'mobilenetv2'];
/** Runs of one turn, before which as many warm up: the others have evicted the weights. */
const TURN = 4;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { isa: { type: 'string' }, rounds: { type: 'string', default: '20' } },
});

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

async function runnersOf(network) {
  const files = [`${network}.onnx`, `${network}.int8.onnx`].map((name) => join(MODELS, name));
  const missing = files.find((file) => !existsSync(file));
  if (missing) throw new Error(`${missing} is missing: run python3 bench/export_models.py --int8 ${network}`);
  const own = (file) => InferenceSession.create(file, { threads: 1, policy: 'full', isa: values.isa });
  const [float, int8] = [await own(files[0]), await own(files[1])];
  const peer = await ort.InferenceSession.create(files[1], { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const [{ name, shape }] = int8.inputMetadata;
  const dims = shape.map((length, axis) => (axis === 0 ? 1 : length));
  const pixels = Float32Array.from({ length: dims.reduce((a, b) => a * b) }, (_, i) => Math.sin(i));
  const feeds = { [name]: new Tensor('float32', pixels, dims) };
  const peerFeeds = { [name]: new ort.Tensor('float32', pixels, dims) };
  return [
    { title: 'int8', run: () => int8.runSync(feeds), times: [] },
    { title: 'float32', run: () => float.runSync(feeds), times: [] },
    { title: 'onnxruntime-node int8', run: () => peer.run(peerFeeds), times: [] },
  ];
}

for (const network of positionals.length > 0 ? positionals : NETWORKS) {
  const runners = await runnersOf(network);
  for (let round = -2; round < Number(values.rounds); round++) {
    for (const { run, times } of runners) {
      for (let i = -TURN; i < TURN; i++) {
        const start = performance.now();
        await run();
        if (round >= 0 && i >= 0) times.push(performance.now() - start);
      }
    }
  }
  const [int8, ...others] = runners.map(({ title, times }) => ({
    title,
    median: median(times),
    least: Math.min(...times),
  }));
  console.log(`${network}: int8 ${int8.median.toFixed(2)} ms (least ${int8.least.toFixed(2)})`);
  for (const { title, median: time, least } of others) {
    const ratios = `${(time / int8.median).toFixed(2)}x, by least times ${(least / int8.least).toFixed(2)}x`;
    console.log(`  ${title} ${time.toFixed(2)} ms (least ${least.toFixed(2)}): int8 is ${ratios}`);
  }
}
