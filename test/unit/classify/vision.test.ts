/** ObjectDetector and Segmenter on networks whose answers are constants, or the pixels themselves. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Preprocessor } from 'lib/data/preprocess.js';
import { ObjectDetector, type ObjectDetectorOptions, Segmenter } from 'lib/index.js';
import sharp from 'sharp';
import { cli } from '../../helpers/cli.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';

interface Answer {
  readonly dims: readonly number[];
  readonly data: readonly number[];
  readonly integers?: true;
}

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function folderOf(graph: GraphBuilder, files: Readonly<Record<string, unknown>> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'rskip-vision-'));
  folders.push(folder);
  writeFileSync(join(folder, 'model.onnx'), modelBytes(graph));
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(folder, name), JSON.stringify(content));
  return folder;
}

/** A network that answers with constants, which are computed from the image all the same. */
function answering(
  input: readonly (number | string)[],
  answers: Readonly<Record<string, Answer>>,
  files?: Readonly<Record<string, unknown>>,
): string {
  const graph = new GraphBuilder();
  graph.input('image', input);
  const largest = graph.node('ReduceMax', ['image'], { keepdims: 0 });
  const nothing = graph.node('Mul', [largest, graph.constant(tensor(Float32Array.of(0), []))]);
  for (const [name, { dims, data, integers }] of Object.entries(answers)) {
    const elements = integers ? BigInt64Array.from(data, BigInt) : Float32Array.from(data);
    const zero = integers ? graph.node('Cast', [nothing], { to: 7 }) : nothing;
    graph.nodes('Add', [graph.constant(tensor(elements, dims)), zero], {}, { outputs: [name] });
    graph.output(name, dims, integers ? 'int64' : 'float32');
  }
  return folderOf(graph, files);
}

const image = (width: number, height: number) => ({
  width,
  height,
  channels: 3 as const,
  data: new Uint8Array(width * height * 3).fill(90),
});

async function detected(folder: string, options: ObjectDetectorOptions, width = 200, height = 100) {
  const detector = await ObjectDetector.from(folder, { threads: 1, ...options });
  try {
    return await detector.detect(image(width, height));
  } finally {
    await detector.release();
  }
}

test('prepared images are freed after their run', async () => {
  const boxes = answering([3, 50, 50], {
    boxes: { dims: [1, 4], data: [5, 10, 15, 30] },
    labels: { dims: [1], data: [1], integers: true },
    scores: { dims: [1], data: [0.7] },
  });
  const classes = answering([1, 3, 2, 2], { out: { dims: [1, 2, 2, 2], data: Array(8).fill(0) } });
  const apply = jest.spyOn(Preprocessor.prototype, 'apply');
  await detected(boxes, {});
  const segmenter = await Segmenter.from(classes, { threads: 1 });
  await segmenter.segment(image(20, 10));
  await segmenter.release();
  const prepared = await Promise.all(apply.mock.results.map(({ value }) => value));
  apply.mockRestore();
  expect(prepared.map(({ data }) => data.buffer.byteLength)).toEqual([0, 0]);
});

describe('ObjectDetector', () => {
  const labels = { 'config.json': { id2label: { 0: 'none', 1: 'cat', 2: 'dog' } } };

  test('reads boxes, labels and scores, and gives pixels of the image', async () => {
    // The image of 200 x 100 becomes one of 50 x 50.
    const folder = answering(
      [3, 50, 50],
      {
        boxes: { dims: [3, 4], data: [5, 10, 15, 30, 0, 0, 50, 50, 1, 1, 2, 2] },
        labels: { dims: [3], data: [2, 1, 1], integers: true },
        scores: { dims: [3], data: [0.7, 0.9, 0.2] },
      },
      { ...labels, 'preprocessor_config.json': { size: { height: 50, width: 50 } } },
    );
    const found = await detected(folder, {});
    expect(found.map(({ label, index }) => [label, index])).toEqual([
      ['cat', 1],
      ['dog', 2],
    ]);
    expect(found.map(({ score }) => score)).toEqual([Math.fround(0.9), Math.fround(0.7)]);
    expect(found.map(({ box }) => box)).toEqual([
      { x: 0, y: 0, width: 200, height: 100 },
      { x: 20, y: 20, width: 40, height: 40 },
    ]);
  });

  test('one box has the shape of a batch of one', async () => {
    const folder = answering([3, 50, 50], {
      boxes: { dims: [1, 4], data: [5, 10, 15, 30] },
      labels: { dims: [1], data: [1], integers: true },
      scores: { dims: [1], data: [0.7] },
    });
    expect(await detected(folder, {})).toEqual([
      { index: 1, label: '1', score: Math.fround(0.7), box: { x: 20, y: 20, width: 40, height: 40 } },
    ]);
  });

  test('reads columns of YOLO behind a letterbox, and suppresses what overlaps', async () => {
    // 200 x 100 becomes 64 x 32 in the middle of 64 x 64: 16 rows of grey are above it.
    const columns = [
      [32, 32, 16, 8, 0.9, 0.1],
      [32.5, 32, 16, 8, 0.8, 0.1],
      [8, 20, 8, 8, 0.1, 0.6],
      [8, 20, 8, 8, 0.1, 0.2],
      [1, 1, 1, 1, 0, 0],
      [1, 1, 1, 1, 0, 0],
      [1, 1, 1, 1, 0, 0],
    ];
    const data = columns[0]!.flatMap((_, row) => columns.map((column) => column[row]!));
    const folder = answering([1, 3, 64, 64], { out: { dims: [1, 6, 7], data } });
    const found = await detected(folder, { preprocessor: 'letterbox', labels: ['car', 'bus'] });
    expect(found.map(({ label }) => label)).toEqual(['car', 'bus']);
    expect(found.map(({ box }) => box)).toEqual([
      { x: 75, y: 37.5, width: 50, height: 25 },
      { x: 12.5, y: 0, width: 25, height: 25 },
    ]);
  });

  test.each([
    ['two classes', ['car', 'bus'], 12],
    // What is read as corners, score and class where it can be left over from suppression.
    ['one class', ['car'], 1200],
    ['labels that nobody knows', undefined, 12],
  ])('reads rows of YOLOv5 with %s: an object times a class', async (_, labels, count) => {
    const classes = labels?.length ?? 2;
    const own = (k: number) => Array.from({ length: classes }, (__, c) => (c === k ? 0.9 : 0.2));
    const last = classes - 1;
    // The second is hardly an object, though its class is sure; the third overlaps the first.
    const found = [
      [32, 32, 16, 8, 0.8, ...own(0)],
      [8, 20, 8, 8, 0.4, ...own(last)],
      [32.5, 32, 16, 8, 0.7, ...own(0)],
      [8, 40, 8, 8, 0.9, ...own(last)],
    ];
    const rows = [...found, ...Array.from({ length: count - 4 }, () => [3, 3, 2, 2, 0.01, ...own(0)])];
    const folder = answering([1, 3, 64, 64], {
      out: { dims: [1, count, 5 + classes], data: rows.flat() },
    });
    const objects = await detected(folder, { preprocessor: 'letterbox', ...(labels && { labels }) });
    expect(objects.map(({ index, score }) => [index, Number(score.toFixed(4))])).toEqual([
      [last, 0.81],
      [0, 0.72],
    ]);
    expect(objects[1]!.box).toEqual({ x: 75, y: 37.5, width: 50, height: 25 });
  });

  test('reads rows of corners, score and class', async () => {
    const folder = answering([1, 3, 50, 50], {
      out: { dims: [1, 2, 6], data: [5, 10, 15, 30, 0.7, 1, 0, 0, 50, 50, 0.4, 0] },
    });
    expect(await detected(folder, {})).toMatchObject([{ index: 1, box: { x: 20, y: 20 } }]);
  });

  test('reads logits and pred_boxes: of DETR with a class for no object, of others without', async () => {
    const boxes = { dims: [1, 2, 4], data: [0.5, 0.5, 0.5, 0.2, 0.25, 0.5, 0.1, 0.1] };
    const sized = { 'preprocessor_config.json': { size: { height: 50, width: 50 }, do_pad: false } };
    const detr = answering(
      [1, 3, 50, 50],
      { logits: { dims: [1, 2, 4], data: [0, 0, 9, 0, 0, 0, 3, 9] }, pred_boxes: boxes },
      { ...labels, ...sized },
    );
    const [only, ...others] = await detected(detr, {});
    expect(others).toEqual([]);
    expect(only).toMatchObject({ label: 'dog' });
    expect(only!.score).toBeCloseTo(Math.exp(9) / (Math.exp(9) + 3), 6);
    expect(only!.box.x).toBeCloseTo(50, 4);
    expect(only!.box.width).toBeCloseTo(100, 4);
    const sigmoid = answering(
      [1, 3, 50, 50],
      { logits: { dims: [1, 2, 3], data: [-1, 2, -1, -2, -3, -1] }, pred_boxes: boxes },
      { ...labels, ...sized },
    );
    const found = await detected(sigmoid, {});
    expect(found.map(({ label }) => label)).toEqual(['cat']);
    expect(found[0]!.score).toBeCloseTo(1 / (1 + Math.exp(-2)), 6);
  });

  test('refuses what it cannot read, and says how it could', async () => {
    const folder = answering([1, 3, 50, 50], { out: { dims: [1, 10], data: Array(10).fill(0) } });
    await expect(detected(folder, {})).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining("(boxes: 'corners', 'centres', 'detr', 'yolo', 'yolov5')"),
    });
  });
});

describe('Segmenter', () => {
  /** Scores are the pixels of a map of half the size. */
  function dominant(preprocessor: unknown, labels: Record<number, string> = {}): string {
    const graph = new GraphBuilder();
    graph.input('image', [1, 3, 'h', 'w']);
    graph.nodes('AveragePool', ['image'], { kernel_shape: [2, 2], strides: [2, 2] }, { outputs: ['logits'] });
    graph.output('logits', [1, 3, 'h2', 'w2']);
    return folderOf(graph, { 'preprocessor_config.json': preprocessor, 'config.json': { id2label: labels } });
  }

  /** Red on the left, blue on the right. */
  const halves = (width: number, height: number) => {
    const data = new Uint8Array(width * height * 3);
    for (let i = 0; i < width * height; i++) data[3 * i + (i % width < width / 2 ? 0 : 2)] = 250;
    return { width, height, channels: 3 as const, data };
  };

  test.each([
    ['resized', { size: { height: 16, width: 16 } }],
    [
      'padded',
      { size: { max_height: 32, max_width: 32 }, do_pad: true, pad_size: { height: 32, width: 32 } },
    ],
  ])('gives each pixel of the image its class, though it is %s', async (_how, preprocessor) => {
    const folder = dominant(preprocessor, { 0: 'red', 1: 'green', 2: 'blue' });
    const segmenter = await Segmenter.from(folder, { threads: 1 });
    const found = await segmenter.segment(halves(64, 24));
    await segmenter.release();
    expect([found.width, found.height, found.mask.length]).toEqual([64, 24, 64 * 24]);
    const row = (y: number) => [...found.mask.subarray(64 * y, 64 * (y + 1))];
    for (const y of [0, 11, 23]) {
      expect(row(y).slice(0, 29)).toEqual(Array(29).fill(0));
      expect(row(y).slice(35)).toEqual(Array(29).fill(2));
    }
    expect(found.classes.map(({ label }) => label).sort()).toEqual(['blue', 'red']);
    for (const { share } of found.classes) expect(Math.abs(share - 0.5)).toBeLessThan(0.06);
  });

  test('writes the mask as a PNG in the colours of its classes', async () => {
    const segmenter = await Segmenter.from(dominant({ size: { height: 16, width: 16 } }), { threads: 1 });
    const found = await segmenter.segment(halves(16, 16));
    await segmenter.release();
    const { data, info } = await sharp(await found.toPng())
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect([info.width, info.height, info.channels]).toEqual([16, 16, 3]);
    expect([...data.subarray(0, 3)]).toEqual([0, 0, 0]);
    // The second class of PASCAL VOC, after the background and aeroplanes, is green.
    expect([...data.subarray(45, 48)]).toEqual([0, 128, 0]);
  });

  test('reads maps of classes, and refuses rows of scores', async () => {
    const map = answering([1, 3, 2, 2], { out: { dims: [1, 2, 2], data: [7, 7, 3, 7], integers: true } });
    const segmenter = await Segmenter.from(map, { threads: 1 });
    const { mask, classes } = await segmenter.segment(image(4, 2));
    await segmenter.release();
    expect([...mask]).toEqual([7, 7, 7, 7, 3, 3, 7, 7]);
    expect(classes).toEqual([
      { index: 7, label: '7', share: 0.75 },
      { index: 3, label: '3', share: 0.25 },
    ]);
    const row = answering([1, 3, 2, 2], { out: { dims: [1, 5], data: [1, 2, 3, 4, 5] } });
    await expect(Segmenter.from(row)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test.each(['masks_queries_logits', 'pred_masks'])(
    'refuses scores beside %s, which are no map',
    async (name) => {
      const scores = { dims: [1, 2, 3], data: [1, 2, 3, 4, 5, 6] };
      const masks = { dims: [1, 2, 2, 2], data: [1, 2, 3, 4, 5, 6, 7, 8] };
      const answers = { class_queries_logits: scores, [name]: masks };
      await expect(Segmenter.from(answering(['batch', 3, 8, 8], answers))).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(new RegExp(`output '${name}' holds a mask for each object`)),
      });
    },
  );
});

describe('run', () => {
  const PICTURE = resolve('examples/images/cat-0000.jpg');

  test('shows objects, and their boxes as JSON', async () => {
    const folder = answering([3, 50, 50], {
      boxes: { dims: [1, 4], data: [5, 10, 15, 30] },
      scores: { dims: [1], data: [0.75] },
    });
    const table = await cli('run', folder, PICTURE, '--backend', 'reference');
    expect(table.out).toMatch(/objects/);
    expect(table.out).toMatch(/0 75 %/);
    const { width, height } = await sharp(PICTURE).metadata();
    const json = await cli('run', folder, PICTURE, '--json', '--backend', 'reference');
    const [only, ...others] = JSON.parse(json.out)[0].objects;
    expect(others).toEqual([]);
    expect(only).toMatchObject({ index: 0, label: '0', score: 0.75 });
    expect(only.box.x).toBeCloseTo(width! * 0.1);
    expect(only.box.y).toBeCloseTo(height! * 0.2);
    expect(only.box.width).toBeCloseTo(width! * 0.2);
    expect(only.box.height).toBeCloseTo(height! * 0.4);
    const refused = await cli('run', folder, PICTURE, '-o', folder);
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringMatching(/--output: it is for networks that/),
    ]);
  });

  test('shows the classes of pixels, and writes the mask as a PNG', async () => {
    const map = answering(
      [1, 3, 2, 2],
      { out: { dims: [1, 2, 2], data: [7, 7, 3, 7], integers: true } },
      {
        'config.json': { architectures: ['TestForSemanticSegmentation'] },
      },
    );
    const out = join(map, 'masks');
    const table = await cli('run', map, PICTURE, '-o', out, '--backend', 'reference');
    expect(table.out).toMatch(/classes/);
    expect(table.out).toMatch(/7 75 %, 3 25 %/);
    const [mask, picture] = await Promise.all([
      sharp(join(out, 'cat-0000.png')).metadata(),
      sharp(PICTURE).metadata(),
    ]);
    expect([mask.width, mask.height]).toEqual([picture.width, picture.height]);
  });
});
