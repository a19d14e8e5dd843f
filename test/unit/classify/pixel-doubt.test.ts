/** What is said of pixels whose preparation is a guess. */
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImageClassifier } from 'lib/classify/image-classifier.js';
import { decodeImage } from 'lib/data/image.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import type { PreprocessorPreset } from 'lib/data/presets.js';
import { InferenceSession } from 'lib/session/session.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const PHOTOGRAPHS = 'examples/images';
const files = readdirSync(PHOTOGRAPHS).map((file) => join(PHOTOGRAPHS, file));
/** Statistics are of every other photograph; the rest is looked at. */
const training = files.filter((_, i) => i % 2 === 0);
const unseen = files.filter((_, i) => i % 2 === 1);
const [FILTERS, SIDE] = [24, 3];

afterAll(removeFolders);

const filters = () => randomFloats(FILTERS * 3 * SIDE * SIDE, 5);

/** Mean and variance of each filter's output over the photographs, as training finds them. */
async function statistics(preset: PreprocessorPreset): Promise<[number, number][]> {
  const graph = new GraphBuilder();
  graph.input('image', [1, 3, 32, 32]);
  const weights = graph.constant(tensor(filters(), [FILTERS, 3, SIDE, SIDE]));
  graph.output(graph.node('Conv', ['image', weights]));
  await using session = await InferenceSession.create(modelBytes(graph), { backend: 'reference' });
  const preprocessor = new Preprocessor({ preset }, { channels: 3, height: 32, width: 32 }, preset);
  const sums = Array.from({ length: FILTERS }, () => [] as number[]);
  for (const file of training) {
    const { data, shape } = await preprocessor.apply(await decodeImage(file), file);
    const [output] = Object.values(await session.run({ image: new Tensor('float32', data, shape) }));
    const area = output!.size / FILTERS;
    for (const [c, sum] of sums.entries())
      sum.push(...(output!.data.slice(c * area, (c + 1) * area) as Float32Array));
  }
  return sums.map((values) => {
    const mean = values.reduce((a, b) => a + b) / values.length;
    return [mean, values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length];
  });
}

/** A classifier whose first layer was trained on pixels of a preset; `folded` as PyTorch's exporter writes it. */
async function trainedOn(preset: PreprocessorPreset, folded: boolean): Promise<string> {
  const found = await statistics(preset);
  const gamma = Array.from(randomFloats(FILTERS, 6), (x) => 1 + x / 2);
  const beta = Array.from(randomFloats(FILTERS, 7), (x) => x / 2);
  const graph = new GraphBuilder();
  graph.input('image', [1, 3, 32, 32]);
  const own = filters();
  const scale = found.map(([, variance], c) => gamma[c]! / Math.sqrt(variance));
  const scaled = own.map((weight, i) => weight * scale[Math.floor(i / (own.length / FILTERS))]!);
  const weights = graph.constant(tensor(folded ? scaled : own, [FILTERS, 3, SIDE, SIDE]), 'onnx::Conv_12');
  const bias = folded && graph.constant(float32s(...found.map(([mean], c) => beta[c]! - scale[c]! * mean)));
  const sums = graph.node('Conv', ['image', weights, ...(bias ? [bias] : [])]);
  const parts = [gamma, beta, found.map(([mean]) => mean), found.map(([, variance]) => variance)];
  const normal = folded
    ? sums
    : graph.node('BatchNormalization', [sums, ...parts.map((part) => graph.constant(float32s(...part)))]);
  graph.output(graph.node('Flatten', [graph.node('GlobalAveragePool', [graph.node('Relu', [normal])])]));
  return folderOf({ 'model.onnx': modelBytes(graph) });
}

/** What is noted at each image, by a classifier that has seen no other. */
async function notesOf(folder: string, images: readonly string[]): Promise<string[]> {
  const notes: string[] = [];
  for (const image of images) {
    await using classifier = await ImageClassifier.from(folder, {
      ...{ backend: 'reference', onNote: (note: string) => notes.push(note) },
    });
    await classifier.classify([image, image]);
  }
  return notes;
}

const SOFT = /half of its right answers/;

describe.each([false, true])('of a first layer with its normalisation folded in: %s,', (folded) => {
  test.each<[PreprocessorPreset, RegExp]>([
    ['imagenet', /expects a mean of about -?0\.\d: .*--preprocessor imagenet/],
    ['symmetric', /expects a mean of about -?0\.\d: .*--preprocessor (imagenet or )?symmetric/],
    ['bytes', /expects a mean of about \d{2,3}: .*--preprocessor bytes/],
  ])('a note names the preset %s, at the first of any images and once', async (preset, note) => {
    const notes = await notesOf(await trainedOn(preset, folded), unseen);
    expect(notes).toHaveLength(unseen.length);
    for (const one of notes) expect(one).toMatch(note);
  });

  test('nothing is wrong with one that was trained on 0 to 1', async () => {
    for (const note of await notesOf(await trainedOn('unit', folded), unseen)) expect(note).toMatch(SOFT);
  });
});

test('of a trained network whose file is missing, the commands say what it expects', async () => {
  const folder = folderOf({});
  for (const file of ['model.onnx', 'config.json'])
    copyFileSync(join('test/models/cifar10-resnet32', file), join(folder, file));
  const images = join(folder, 'images');
  mkdirSync(images);
  for (const file of unseen) copyFileSync(file, join(images, file.slice(PHOTOGRAPHS.length + 1)));
  const { err } = await cli('run', folder, images);
  expect(err).toMatch(
    /^note: there is no preprocessor_config\.json .* expects a mean of about -0\.6: .*--preprocessor imagenet/,
  );
  expect(err.match(/note:/g)).toHaveLength(1);
  writeFileSync(join(folder, 'preprocessor_config.json'), '{"preset":"imagenet"}');
  expect((await cli('run', folder, images)).err).toBe('');
});

test('of prepared tensors, nothing is said', async () => {
  const folder = await trainedOn('imagenet', false);
  const notes: string[] = [];
  await using classifier = await ImageClassifier.from(folder, {
    ...{ backend: 'reference', onNote: (note: string) => notes.push(note) },
  });
  await classifier.session.run({
    image: new Tensor('float32', new Float32Array(3 * 32 * 32), [1, 3, 32, 32]),
  });
  expect(notes).toEqual([]);
});
