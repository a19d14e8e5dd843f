/** Embedder on networks of images. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodePng } from 'lib/data/image.js';
import { calibrate, Embedder, type EmbedderOptions, type Pooling } from 'lib/index.js';
import { expectClose } from '../../helpers/compare.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, int64s, modelBytes } from '../../helpers/onnx-builder.js';
import { uniform } from '../../helpers/random.js';

const SIDE = 4;
const CONFIG = { size: { height: SIDE, width: SIDE } };
const options = { backend: 'reference' } as const;
afterAll(removeFolders);

type Form = 'vector' | 'map' | 'tokens';

/** The pixels, as a map, as tokens, or their mean; before it an output that holds something else, if the other has a name. */
function folder(form: Form, name?: string): string {
  const graph = new GraphBuilder();
  const image = graph.input('pixel_values', ['batch', 3, SIDE, SIDE]);
  if (name) graph.output(graph.node('Neg', [image]), ['batch', 3, SIDE, SIDE]);
  const outputs = name ? { outputs: [name] } : {};
  if (form === 'vector') {
    const [mean] = graph.nodes('ReduceMean', [image], { axes: [2, 3], keepdims: 0 }, outputs);
    graph.output(mean!, ['batch', 3]);
  } else if (form === 'map') {
    const [map] = graph.nodes('Relu', [image], {}, outputs);
    graph.output(map!, ['batch', 3, SIDE, SIDE]);
  } else {
    const rows = graph.node('Reshape', [image, graph.constant(int64s(0, 3, SIDE * SIDE))]);
    const [tokens] = graph.nodes('Transpose', [rows], { perm: [0, 2, 1] }, outputs);
    graph.output(tokens!, ['batch', SIDE * SIDE, 3]);
  }
  return folderOf({ 'model.onnx': modelBytes(graph), 'preprocessor_config.json': JSON.stringify(CONFIG) });
}

function image(seed: number) {
  const random = uniform(seed);
  const data = Uint8Array.from({ length: SIDE * SIDE * 3 }, () => 256 * random());
  return { width: SIDE, height: SIDE, channels: 3 as const, data };
}
const channelsOf = ({ data }: ReturnType<typeof image>) =>
  [0, 1, 2].map((c) => Array.from({ length: SIDE * SIDE }, (_, i) => data[3 * i + c]! / 255));
const mean = (list: readonly number[]) => list.reduce((sum, x) => sum + x, 0) / list.length;
const near = (actual: Float32Array, expected: readonly number[]) =>
  expectClose(actual, Float32Array.from(expected), { relative: 1e-5, absolute: 1e-6 });

test.each([
  ['vector', undefined, mean],
  ['map', undefined, mean],
  ['tokens', undefined, mean],
  ['tokens', 'max', (list: readonly number[]) => Math.max(...list)],
  ['tokens', 'cls', (list: readonly number[]) => list[0]!],
  ['map', 'max', (list: readonly number[]) => Math.max(...list)],
] as const)('a network of images that answers with a %s; pooling: %s', async (form, pooling, pool) => {
  const own: EmbedderOptions = pooling ? { pooling: pooling satisfies Pooling } : {};
  await using embedder = await Embedder.from(folder(form), { ...options, ...own });
  expect(embedder.pooling).toEqual(form === 'vector' ? null : [pooling ?? 'mean']);
  // More than one run takes.
  const images = Array.from({ length: 20 }, (_, i) => image(i + 1));
  const found = await embedder.embed(images, { trace: true });
  expect(found).toHaveLength(images.length);
  for (const [i, { vector, trace }] of found.entries()) {
    near(vector, channelsOf(images[i]!).map(pool));
    expect(trace).toMatchObject({ blocks: [] });
  }
  expect(await embedder.embed(images[3]!)).toEqual({ vector: found[3]!.vector, trace: null });
});

test('a string is the path of an image, and its vector is scaled if asked for', async () => {
  const path = folder('vector');
  const file = join(path, 'photo.png');
  writeFileSync(file, await encodePng(image(7)));
  await using embedder = await Embedder.from(path, { ...options, normalize: true });
  const raw = channelsOf(image(7)).map(mean);
  near(
    (await embedder.embed(file)).vector,
    raw.map((x) => x / Math.hypot(...raw)),
  );
  await expect(embedder.embed('nowhere.png')).rejects.toMatchObject({
    message: expect.stringContaining('nowhere.png'),
  });
});

test.each(['image_embeds', 'pooler_output'])(
  'reads the output %s, not the first, and so does calibrate',
  async (name) => {
    const path = folder('vector', name);
    await using embedder = await Embedder.from(path, options);
    expect(embedder.output).toBe(name);
    near((await embedder.embed(image(2))).vector, channelsOf(image(2)).map(mean));
    // It gets as far as to look for blocks.
    await expect(calibrate(path, [image(1)], { task: 'embedding', metric: 'cosine' })).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
    });
  },
);

test('labels beside the network are none of its vectors', async () => {
  const path = folder('vector');
  writeFileSync(join(path, 'config.json'), JSON.stringify({ id2label: { 0: 'cat', 1: 'dog' } }));
  await using embedder = await Embedder.from(path, options);
  expect((await embedder.embed(image(3))).vector).toHaveLength(3);
});

test('refuses what is no image, and options that are none', async () => {
  await using embedder = await Embedder.from(folder('vector'), options);
  const code = 'INVALID_ARGUMENT';
  await expect(embedder.embed(5 as never)).rejects.toMatchObject({
    code,
    message: 'embed: expected an image or an array of images',
  });
  await expect(embedder.embed({ text: 'a', pair: 'b' })).rejects.toMatchObject({ code });
  expect(() => embedder.prepare('photo.png')).toThrow(/takes images; ImageClassifier prepares those/);
  await expect(Embedder.from(folder('vector'), { maxPixel: 4 } as never)).rejects.toMatchObject({
    code,
    message: expect.stringMatching(/'maxPixel'; did you mean 'maxPixels'/),
  });
  await expect(Embedder.from(folder('vector'), { maxPixels: 0 })).rejects.toMatchObject({ code });
  await expect(Embedder.from(folder('vector'), { onNote: 5 as never })).rejects.toMatchObject({ code });
});

test('refuses a network of neither images nor texts, and says what it takes', async () => {
  const graph = new GraphBuilder();
  graph.output(graph.node('Relu', [graph.input('x', ['n', 3])]), ['n', 3]);
  await expect(Embedder.from(folderOf({ 'model.onnx': modelBytes(graph) }), options)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/it takes x: float32\[n, 3\]; texts need input_ids/),
  });
});
