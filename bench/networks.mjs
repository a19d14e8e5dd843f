// The data sets, the shipped networks for each, and how they are opened to run on one thread.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Work } from '../dist/classify/work.js';
import { openClassifier } from '../dist/cli/classifier.js';
import { takeEvenly } from '../dist/data/dataset.js';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const SILENT = { err: () => {} };
const IDX = { test: 't10k-images-idx3-ubyte.gz', train: 'train-images-idx3-ubyte.gz' };

/**
 * Data sets: paths in their folder below that of all data; the shipped networks, a plain one and its twin that skips; and which
 * share of the plain one's time skipping must save, in the mean.
 */
export const SETS = {
  cifar10: {
    title: 'CIFAR-10',
    test: 'test',
    train: 'train',
    networks: ['cifar10-resnet14', 'cifar10-resnet14-exits'],
    cut: 0.35,
  },
  'fashion-mnist': {
    title: 'Fashion-MNIST',
    ...IDX,
    networks: ['fashion-mnist-resnet26', 'fashion-mnist-resnet26-exits'],
    cut: 0.35,
  },
  imagenette: {
    title: 'Imagenette',
    test: 'test',
    train: 'train',
    networks: ['imagenette-resnet18', 'imagenette-resnet18-exits'],
    cut: 0.35,
  },
  mnist: {
    title: 'MNIST',
    ...IDX,
    networks: ['mnist-resnet20', 'mnist-resnet20-gates'],
    cut: 0.3,
  },
  sst2: {
    title: 'SST-2',
    test: 'test.tsv',
    train: 'train.tsv',
    validation: 'dev.tsv',
    networks: ['sst2-encoder', 'sst2-encoder-exits'],
    cut: 0.35,
  },
};

/** The folders of a data set's plain network and of its twin that skips. */
export function modelFolders(dataset) {
  const [plain, skipping] = SETS[dataset].networks.map((name) => join(ROOT, 'models', name));
  return { plain, skipping };
}

/** Opens a network with a policy: a SkipPolicy, a file, 'model' or 'full'. */
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

/** The path of one part of a data set. */
export const partPath = (dataFolder, dataset, part) => join(dataFolder, dataset, SETS[dataset][part]);

/** Images of one part of a data set, in the format of readImagesOf. */
export async function readImages(classifier, dataFolder, dataset, part, limit) {
  const path = partPath(dataFolder, dataset, part);
  if (!existsSync(path)) throw new Error(`${path} is not there; --data names the folder of the data sets`);
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
