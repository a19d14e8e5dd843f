// The speed of 8-bit networks beside the same networks in float32 on this package and beside onnxruntime-node on the same
// 8-bit file: one item, one thread, alternating in one process. First build, export the networks of both kinds
// (python3 bench/export_models.py --int8) and install the peers (cd bench && npm ci --ignore-scripts).
//   node bench/int8.mjs [--isa NAME] [--rounds N] [NETWORK...]
// Or 8 bits and skipping together: the networks in models/ of a data set and their 8-bit forms (node bench/ship-int8.mjs), on the
// odd-numbered test images, which certified nothing; mean times of one image, accuracy, and answers that differ from the float network's.
//   node bench/int8.mjs --skipping DATASET [--data DIR] [--isa NAME]
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from '../dist/index.js';
import { argMax } from '../dist/numeric/softmax.js';
import { mean } from '../dist/numeric/statistics.js';

const MODELS = join(dirname(fileURLToPath(import.meta.url)), 'models');
const NETWORKS = ['resnet18', 'resnet50', 'mobilenetv2', 'deit_tiny'];
/** Runs of one turn, before which as many warm up: the others have evicted the weights. */
const TURN = 4;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    isa: { type: 'string' },
    rounds: { type: 'string', default: '20' },
    skipping: { type: 'string' },
    data: { type: 'string', default: join(MODELS, '..', '..', '.cache', 'data') },
  },
});

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

async function runnersOf(network) {
  const files = [`${network}.onnx`, `${network}.int8.onnx`].map((name) => join(MODELS, name));
  const missing = files.find((file) => !existsSync(file));
  if (missing) throw new Error(`${missing} is missing: run python3 bench/export_models.py --int8 ${network}`);
  const own = (file) => InferenceSession.create(file, { threads: 1, policy: 'full', isa: values.isa });
  const [float, int8] = [await own(files[0]), await own(files[1])];
  const ort = await import('onnxruntime-node');
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

async function withSkipping(dataset) {
  const { modelFolders, open, readImages } = await import('./reproduction/networks.mjs');
  const { alternate } = await import('./reproduction/measure.mjs');
  const { plain, gated } = modelFolders(dataset);
  const { isa } = values;
  const networks = {
    'plain, float': await open(plain, 'full', { isa }),
    'plain, int8': await open(join(plain, 'model.int8.onnx'), 'full', { isa }),
    'gated, float, policy': await open(gated, join(gated, 'policy.json'), { isa }),
    'gated, float, in full': await open(gated, 'full', { isa }),
    'gated, int8, policy': await open(join(gated, 'model.int8.onnx'), join(gated, 'policy.int8.json'), {
      isa,
    }),
  };
  const [[, twin]] = Object.entries(networks);
  const images = (await readImages(twin, values.data, dataset, 'test')).filter((_, i) => i % 2 === 1);
  const answers = Object.keys(networks).map(() => []);
  const runners = Object.values(networks).map((network) => ({
    run: (tensor) => network.time(tensor, 'skip').scores,
  }));
  for (const { run } of runners) for (const { tensor } of images.slice(0, 100)) run(tensor);
  const times = await alternate(runners, images, (k, i, scores) => (answers[k][i] = argMax(scores)));
  const full = answers[Object.keys(networks).indexOf('gated, float, in full')];
  const share = (part, whole) => `${((100 * part) / whole).toFixed(2)} %`;
  console.log(`${dataset}, ${images.length} images, ${twin.session.isa}`);
  for (const [k, name] of Object.keys(networks).entries()) {
    const right = answers[k].filter((answer, i) => answer === images[i].image.label).length;
    const changed = answers[k].filter((answer, i) => answer !== full[i]).length;
    const time = `mean ${mean(times[k]).toFixed(3)} ms (${share(mean(times[k]), mean(times[0]))} of the plain float network's)`;
    const least = `median ${median(times[k]).toFixed(3)} ms`;
    const own = name.startsWith('gated') ? `, ${share(changed, images.length)} of the answers changed` : '';
    console.log(`${name}: ${time}, ${least}; accuracy ${share(right, images.length)}${own}`);
  }
}

if (values.skipping !== undefined) {
  await withSkipping(values.skipping);
  process.exit();
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
