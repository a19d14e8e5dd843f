import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { contentHash } from 'lib/calibrate/split.js';
import { TextClassifier } from 'lib/classify/text-classifier.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { decodeModelProto, encodeModelProto } from 'lib/model/read/proto.js';
import { argMax } from 'lib/numeric/softmax.js';
import { quantize } from 'lib/quantize/quantize.js';
import { InferenceSession } from 'lib/session/session.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { randomFloats, uniform } from '../../helpers/random.js';
import { seededNetwork } from '../../helpers/seeded-network.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

const ROOT = resolve(__dirname, '../../..');
const RUNTIME = process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
const SIDE = 16;
const image = (seed: number) => {
  const tone = randomFloats(3, 1000 + seed);
  const data = randomFloats(3 * SIDE ** 2, seed).map((x, i) => x + 2 * tone[Math.floor(i / SIDE ** 2)]!);
  return new Tensor('float32', data, [1, 3, SIDE, SIDE]);
};
const IMAGES = Array.from({ length: 80 }, (_, i) => image(i));
const FOLDER = folderOf({ 'model.onnx': seededNetwork() });
const MODEL = join(FOLDER, 'model.onnx');
afterAll(removeFolders);

const made = quantize(MODEL, IMAGES, { threads: 1 });

test('a quarter of the weights, answers that hardly change, and blocks that can still be skipped', async () => {
  const { model, bytes, layers, answers, images, loss, sha256, floatSha256 } = await made;
  expect(layers.int8).toBeGreaterThanOrEqual(6);
  expect(layers.int8 + layers.float.length).toBe(8);
  expect(images).toEqual({ ranges: 20, choice: 20 });
  expect(answers.items).toBe(40);
  expect(answers.changed).toBeLessThanOrEqual(4);
  expect(loss).toBeLessThan(0.01);
  expect(bytes.int8).toBe(model.byteLength);
  await using float = await InferenceSession.create(MODEL);
  await using int8 = await InferenceSession.create(model);
  expect([float.model.sha256, int8.model.sha256]).toEqual([floatSha256, sha256]);
  const feeds = { pixel_values: image(500) };
  const [before, after] = [float, int8].map((session) => session.runSync(feeds).logits!.data as Float32Array);
  const most = Math.max(...before!.map(Math.abs));
  before!.forEach((value, i) => {
    expect(Math.abs(after![i]! - value)).toBeLessThan(0.05 * most);
  });
  expect(int8.blocks.map(({ skippable }) => skippable)).toEqual(
    float.blocks.map(({ skippable }) => skippable),
  );
});

test('the size of the float network counts the files of its weights', async () => {
  const proto = decodeModelProto(seededNetwork());
  const weights: Uint8Array[] = [];
  for (const tensor of proto.graph!.initializer!) {
    const name = `w${weights.length}.bin`;
    weights.push(tensor.rawData as Uint8Array);
    delete tensor.rawData;
    Object.assign(tensor, { dataLocation: 1, externalData: [{ key: 'location', value: name }] });
  }
  const model = encodeModelProto(proto);
  const files = weights.map((data, i) => [`w${i}.bin`, data] as const);
  const folder = folderOf({ 'model.onnx': model, ...Object.fromEntries(files) });
  const { bytes, sha256 } = await quantize(folder, IMAGES, { threads: 1 });
  const original = await made;
  expect(bytes.float).toBe(weights.reduce((sum, { length }) => sum + length, model.length));
  expect({ int8: bytes.int8, sha256 }).toEqual({ int8: original.bytes.int8, sha256: original.sha256 });
});

test('the same images and seed give the same file, whatever policy the folder has', async () => {
  const policy = JSON.stringify({ default: 'skip' });
  const folder = folderOf({ 'model.onnx': seededNetwork(), 'policy.json': policy });
  const again = await quantize(folder, IMAGES, { threads: 1 });
  const { sha256, answers } = await made;
  expect(again).toMatchObject({ sha256, answers });
});

test('a layer with a dead channel, whose bias is huge beside its weights, computes with bytes', async () => {
  const folder = folderOf({ 'model.onnx': seededNetwork(true) });
  const { model, layers } = await quantize(folder, IMAGES, { threads: 1 });
  const shape = [1, 3, SIDE, SIDE];
  const { steps } = compileModel(await loadModel(model), new Map([['pixel_values', { shape }]]));
  const counted = (...ops: string[]) => steps.filter(({ op }) => ops.includes(op)).length;
  expect(counted('qconv', 'qmatmul')).toBe(layers.int8);
  expect(counted('conv', 'gemm')).toBe(layers.float.length);
});

test('a note says where an answer may be no class', async () => {
  const config = JSON.stringify({ problem_type: 'multi_label_classification' });
  const folder = folderOf({ 'model.onnx': seededNetwork(), 'config.json': config });
  const notes: string[] = [];
  await quantize(folder, IMAGES.slice(0, 24), { threads: 1, onNote: (note) => notes.push(note) });
  expect(notes).toContainEqual(
    expect.stringMatching(
      /which need be no class: config\.json .* says problem_type multi_label_classification/,
    ),
  );
});

test('exits are fitted on the bytes of its streams, and certified against the float network', async () => {
  const file = join(FOLDER, 'fitted.int8.onnx');
  writeFileSync(file, (await made).model);
  await using float = await InferenceSession.create(MODEL);
  const answerOf = (session: InferenceSession, pixels: Tensor) =>
    argMax(session.runSync({ pixel_values: pixels }).logits!.data as Float32Array);
  // The network answers most images alike: all others, and not so many of those.
  const drawn = Array.from({ length: 3000 }, (_, i) => {
    const tone = randomFloats(3, 5000 + i);
    const noise = randomFloats(3 * SIDE ** 2, 9000 + i);
    const data = noise.map((x, at) => 0.3 * x + 6 * tone[Math.floor(at / SIDE ** 2)]!);
    return new Tensor('float32', data, [1, 3, SIDE, SIDE]);
  });
  const most = answerOf(float, drawn[0]!);
  const others = drawn.filter((pixels) => answerOf(float, pixels) !== most);
  expect(others.length).toBeGreaterThan(50);
  const images = [...others, ...drawn.filter((pixels) => !others.includes(pixels)).slice(0, 160)];
  const { policy, certifiedOn } = await calibrate(file, images, {
    ...{ task: 'single-label', original: MODEL, maxDisagreement: 0.2, copies: 1, penalties: 12, threads: 1 },
  });
  expect(policy.heads!.exits.length).toBeGreaterThan(0);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0);
  await using int8 = await InferenceSession.create(file, { policy });
  const certified = images.filter(({ data }) => certifiedOn.includes(contentHash(data)));
  const changed = certified.filter((pixels) => answerOf(float, pixels) !== answerOf(int8, pixels));
  expect([changed.length, certified.length]).toEqual([policy.promise!.events, policy.promise!.items]);
});

const withRuntime = existsSync(RUNTIME) ? test : test.skip;

withRuntime('onnxruntime runs the file, with the same answers', async () => {
  const { model } = await made;
  const items = 16;
  const data = Float32Array.from(Array.from({ length: items }, (_, i) => [...image(600 + i).data]).flat());
  writeFileSync(join(FOLDER, 'int8.onnx'), model);
  writeFileSync(join(FOLDER, 'int8.bin'), data);
  writeFileSync(
    join(FOLDER, 'int8.json'),
    JSON.stringify({ shape: [items, 3, SIDE, SIDE], batched: true, input: 'pixel_values' }),
  );
  const script = join(ROOT, 'test/helpers/onnxruntime.mjs');
  const expected: number[][] = JSON.parse(
    execFileSync(process.execPath, [script, RUNTIME, FOLDER, 'int8'], { encoding: 'utf8' }),
  );
  await using session = await InferenceSession.create(model);
  const { logits } = await session.run({ pixel_values: new Tensor('float32', data, [items, 3, SIDE, SIDE]) });
  const most = Math.max(...expected.flat().map(Math.abs));
  const classes = expected[0]!.length;
  const differences = expected.flat().map((value, i) => Math.abs((logits!.data as Float32Array)[i]! - value));
  // A rounding at a tie may differ by one step and move a few logits a little.
  expect(Math.max(...differences)).toBeLessThan(0.02 * most);
  const best = (row: ArrayLike<number>) => Array.from(row).indexOf(Math.max(...Array.from(row)));
  const own = expected.map((_, i) =>
    best((logits!.data as Float32Array).slice(i * classes, (i + 1) * classes)),
  );
  expect(own).toEqual(expected.map(best));
});

test('texts of any length choose ranges, and a network of vectors is refused', async () => {
  const folder = textNetwork('classes');
  const texts = randomTexts(120, 3);
  const { model, layers, answers, loss, images } = await quantize(folder, texts, { threads: 1 });
  expect(layers.int8 + layers.float.length).toBe(9);
  expect(layers.int8).toBeGreaterThanOrEqual(8);
  expect(images).toEqual({ ranges: 30, choice: 30 });
  expect(answers).toMatchObject({ items: 60 });
  expect(answers.changed).toBeLessThanOrEqual(3);
  expect(loss).toBeLessThan(0.01);
  const int8 = join(folder, 'model.int8.onnx');
  writeFileSync(int8, model);
  await using float = await TextClassifier.from(join(folder, 'model.onnx'));
  await using small = await TextClassifier.from(int8);
  for (const text of ['word1', texts[0]!, `${texts[1]} ${texts[2]}`]) {
    const [before, after] = await Promise.all([float, small].map((each) => each.classify(text)));
    expect(after!.probability).toBeCloseTo(before!.probability, 1);
  }
  await expect(quantize(textNetwork('vectors'), texts)).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    message: expect.stringMatching(/its answers are no classes/),
  });
  await expect(quantize(folder, texts.slice(0, 5))).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(/^texts: there are 5; quantize needs 20/),
  });
});

test('the command writes the file and says what it costs', async () => {
  const random = uniform(7);
  const tone = () => Math.floor(256 * random());
  const pictures = await Promise.all(Array.from({ length: 24 }, () => png(20, 20, [tone(), tone(), tone()])));
  const data = folderOf(Object.fromEntries(pictures.map((picture, i) => [`${i}.png`, picture])));
  const model = folderOf({
    'model.onnx': seededNetwork(),
    'preprocessor_config.json': JSON.stringify({ do_resize: true, size: { height: SIDE, width: SIDE } }),
    'config.json': JSON.stringify({ id2label: Object.fromEntries([...'abcdef'].entries()) }),
  });
  const output = join(model, 'model.int8.onnx');
  const args = [model, '--data', data, '-o', output, '--threads', '1'];
  const { code, out, err } = await cli('quantize', ...args, '--json');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(JSON.parse(out)).toMatchObject({
    file: output,
    answers: { items: 12 },
    images: { ranges: 6, choice: 6 },
  });
  await using session = await InferenceSession.create(output);
  expect(session.outputNames).toEqual(['logits']);
  const text = await cli('quantize', ...args);
  expect(text.out).toMatch(
    /^file: .*\nsize: [\d.]+ MB instead of [\d.]+ MB\nlayers: \d+ with 8 bits; in float: /,
  );
  const few = await cli(
    'quantize',
    model,
    '--data',
    folderOf({ '1.png': pictures[0]! }),
    '-o',
    output,
    '--json',
  );
  expect(few.code).toBe(1);
  expect(JSON.parse(few.err)).toMatchObject({ error: { code: 'INVALID_DATA' } });
});
