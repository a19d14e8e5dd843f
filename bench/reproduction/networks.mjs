// Opens the networks and test images of one data set, to run on one thread.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Work } from '../../dist/classify/work.js';
import { openClassifier } from '../../dist/cli/classifier.js';
import { takeEvenly } from '../../dist/data/dataset.js';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');
const SILENT = { err: () => {} };

/** Data sets with the paths of their test and training images in the data folder. */
export const DATASETS = {
  cifar10: { title: 'CIFAR-10', test: 'test', train: 'train' },
  'fashion-mnist': {
    title: 'Fashion-MNIST',
    test: 't10k-images-idx3-ubyte.gz',
    train: 'train-images-idx3-ubyte.gz',
  },
  mnist: { title: 'MNIST', test: 't10k-images-idx3-ubyte.gz', train: 'train-images-idx3-ubyte.gz' },
};

/** Data sets of the networks with gates, in the order of the page; research/protocol.py made the others' networks. */
export const REPRODUCED = ['mnist'];

/** The folders of a data set's plain twin and gated network. */
export function modelFolders(dataset) {
  const models = join(ROOT, 'models');
  const gated = readdirSync(models).find((name) => name.startsWith(`${dataset}-`) && name.endsWith('-gated'));
  if (!gated)
    throw new Error(`models/ holds no gated network for ${dataset}: python3 research/train.py ${dataset}`);
  return { plain: join(models, gated.slice(0, -'-gated'.length)), gated: join(models, gated) };
}

/** Opens a network with a policy: a SkipPolicy, 'model' or 'full'. */
export function open(folder, policy, options = {}) {
  return openClassifier(folder, { policy, threads: 1, ...options }, SILENT);
}

/** Labelled images, or texts, at a path for `eval`, ready to be run: [{ image: { name, label }, tensor }]. */
export async function readImagesOf(classifier, path, limit = Number.POSITIVE_INFINITY) {
  const { list } = await classifier.model.open(path, { labelsFrom: 'data' }, new Work('reading', {}));
  const items = takeEvenly(list, limit);
  const images = [];
  for await (const { item: image, tensor } of classifier.prepare(items)) images.push({ image, tensor });
  return images;
}

/** Images of one part of a data set, in the format of readImagesOf. */
export async function readImages(classifier, dataFolder, dataset, part, limit) {
  const path = join(dataFolder, dataset, DATASETS[dataset][part]);
  if (!existsSync(path)) {
    const from = dataset === 'cifar10' ? ' --from DIR' : '';
    throw new Error(`${path} is not there: node scripts/fetch-data.mjs ${dataset}${from} --to ${dataFolder}`);
  }
  return readImagesOf(classifier, path, limit);
}

/** onnxruntime-node from bench/node_modules, or undefined if the peers are not installed. */
export function onnxruntime() {
  const require = createRequire(join(ROOT, 'bench', 'package.json'));
  try {
    const ort = require('onnxruntime-node');
    return { ort, version: require('onnxruntime-node/package.json').version };
  } catch {
    return undefined;
  }
}

/** A network in onnxruntime on one thread; `run(tensor)` resolves to its logits. `feedsOf(tensor)` gives its inputs. */
export async function openOnnxruntime({ ort }, folder, feedsOf) {
  const session = await ort.InferenceSession.create(join(folder, 'model.onnx'), {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
  });
  const [output] = session.outputNames;
  return {
    run: async (tensor) => {
      const feeds = Object.entries(feedsOf(tensor)).map(([name, { type, data, dims }]) => [
        name,
        new ort.Tensor(type, data, dims),
      ]);
      return (await session.run(Object.fromEntries(feeds)))[output].data;
    },
    release: () => session.release(),
  };
}

/** PyTorch's decisions on the whole test set, from reference.json: a bit mask per image, and the uncertain images. */
export function pytorchDecisions(folder) {
  const { testDecisions } = JSON.parse(readFileSync(join(folder, 'reference.json'), 'utf8'));
  if (!testDecisions) return undefined;
  const { blocks, masks, near } = testDecisions;
  const bytes = Buffer.from(masks, 'base64');
  const width = Math.ceil(blocks.length / 8);
  const ran = (image, position) => (bytes[image * width + (position >> 3)] >> (position & 7)) & 1;
  return { blocks, images: bytes.length / width, ran, near: new Set(near) };
}
