/** Networks and data of which no promise can be kept, or of which only one can: none is made in silence. */
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { type Feeds, InferenceSession } from 'lib/index.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import { bytesOf, npy, zip } from '../../helpers/arrays.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const WIDTH = 8;
const CLASSES = 4;
const QUICK = { penalties: 4, threads: 1, maxDisagreement: 0.1 } satisfies CalibrateOptions;

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** Residual layers on a row, and four numbers of it. */
function trunk(): { readonly graph: GraphBuilder; readonly scores: string } {
  const graph = new GraphBuilder();
  const weights = (rows: number, columns: number, seed: number, by: number) =>
    graph.constant(
      tensor(
        randomFloats(rows * columns, seed).map((x) => x * by),
        [rows, columns],
      ),
    );
  let stream = graph.input('x', ['batch', WIDTH]);
  for (let block = 0; block < 4; block++) {
    const wide = graph.node('Relu', [graph.node('MatMul', [stream, weights(WIDTH, 16, block, 0.5)])]);
    const body = graph.node('MatMul', [wide, weights(16, WIDTH, 10 + block, 0.3 / (1 + block))]);
    stream = graph.node('Add', [stream, body]);
  }
  return { graph, scores: graph.node('MatMul', [stream, weights(WIDTH, CLASSES, 20, 2)]) };
}

/** Answers with what `head` makes of the numbers. */
function network(head: (graph: GraphBuilder, scores: string) => string, shape = [CLASSES]): string {
  const { graph, scores } = trunk();
  return folderOf({ 'model.onnx': modelBytes(graph.output(head(graph, scores), ['batch', ...shape])) });
}

/** Answers with probabilities of all four, and of the last two. */
function twoSoftmaxes(): string {
  const { graph, scores } = trunk();
  graph.nodes('Softmax', [scores], { axis: 1 }, { outputs: ['first'] });
  const two = graph.node('Gather', [scores, graph.constant(int64s(2, 3))], { axis: 1 });
  graph.nodes('Softmax', [two], { axis: 1 }, { outputs: ['second'] });
  graph.output('first', ['batch', CLASSES]).output('second', ['batch', 2]);
  return folderOf({ 'model.onnx': modelBytes(graph) });
}

const items = (count: number, seed: number): Feeds[] =>
  Array.from({ length: count }, (_, i) => ({
    x: new Tensor('float32', randomFloats(WIDTH, 1000 * seed + i), [1, WIDTH]),
  }));
const DATA = items(400, 1);

const number = (graph: GraphBuilder, x: number) => graph.constant(tensor(Float32Array.of(x), []));
const node =
  (op: string, attributes = {}) =>
  (graph: GraphBuilder, scores: string) =>
    graph.node(op, [scores], attributes);
const softmax = node('Softmax', { axis: 1 });
const logarithm = (graph: GraphBuilder, scores: string) => softmax(graph, graph.node('Log', [scores]));
const times = (factor: number) => (graph: GraphBuilder, scores: string) =>
  graph.node('Mul', [scores, number(graph, factor)]);
const sigmoids = (less: number) => (graph: GraphBuilder, scores: string) =>
  graph.node('Sigmoid', [graph.node('Sub', [scores, number(graph, less)])]);

type Refused = [string, ReturnType<typeof node>, CalibrateOptions, RegExp];
test.each<Refused>([
  ['NaN for most items, as classes', logarithm, {}, /answers NaN for an item/],
  ['NaN, as label sets', logarithm, { task: 'multi-label' }, /answers NaN for an item/],
  ['NaN, as numbers', logarithm, { task: 'regression' }, /answers NaN or an infinity for an item/],
  ['infinities, as numbers', times(3e38), { metric: 'absolute@1' }, /answers NaN or an infinity/],
  ['one class for all', (g, s) => softmax(g, times(0)(g, s)), {}, /all \d+ the same answer, 'class 0'/],
  ['no label for any', sigmoids(90), {}, /items that order settings the same answer, no label/],
  ['the same number for all', times(0), { metric: 'absolute@1' }, /the same answer, nothing/],
])('refuses a network that answers %s', async (_, head, options, message) => {
  await expect(calibrate(network(head), DATA, { ...QUICK, ...options })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(message),
  });
});

test.each<[string, ReturnType<typeof node>, number[] | undefined]>([
  ['1 - softmax', (g, s) => g.node('Sub', [number(g, 1), softmax(g, s)]), undefined],
  ['- log softmax', (g, s) => g.node('Neg', [g.node('LogSoftmax', [s], { axis: 1 })]), undefined],
  ['a softmax over the batch', node('Softmax', { axis: 0 }), undefined],
  ['weighted probabilities', (g, s) => times(3)(g, softmax(g, s)), undefined],
  ['the largest probability', (g, s) => g.node('ReduceMax', [softmax(g, s)], { axes: [1] }), [1]],
  ['an ArgMax', node('ArgMax', { axis: 1, keepdims: 0 }), []],
])('nothing proves what the answers of %s are', async (_, head, shape) => {
  await expect(calibrate(network(head, shape), DATA, QUICK)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^task: nothing says what output .*say so, --task/),
  });
});

test('labels of probabilities are those above 0.5, whatever made them', async () => {
  const path = network((graph, scores) => softmax(graph, times(3)(graph, scores)));
  const { policy } = await calibrate(path, DATA, { ...QUICK, task: 'multi-label', maxDisagreement: 0.2 });
  expect(policy.promise!.metric).toBe('labels@0.5');
  const { skip } = await evaluate(path, items(600, 2), { policy, threads: 1 });
  expect(skip.loss!.mean).toBeLessThan(0.2);
});

test('several numbers are no class of an item', async () => {
  const rows = Buffer.concat(DATA.map(({ x }) => bytesOf(x!.data as Float32Array)));
  const oneHot = Float32Array.from({ length: DATA.length * CLASSES }, (_, i) => Number(i % CLASSES === 1));
  const members = {
    'x.npy': npy('<f4', [DATA.length, WIDTH], rows),
    'label.npy': npy('<f4', [DATA.length, CLASSES], bytesOf(oneHot)),
  };
  const folder = folderOf({ 'data.npz': zip(members, false) });
  const file = join(folder, 'data.npz');
  await expect(calibrate(network(softmax), file, { ...QUICK, metric: 'accuracy' })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(/its label "0,1,0,0" is not one of the model's; expected one of the 4/),
  });
  // Whoever needs no classes may have others in the file.
  await expect(calibrate(network(softmax), file, QUICK)).resolves.toBeDefined();
});

test('of two softmaxes, the one that is named is promised', async () => {
  const path = twoSoftmaxes();
  const { policy } = await calibrate(path, DATA, { ...QUICK, outputs: ['second'], maxDisagreement: 0.2 });
  expect(policy.promise).toMatchObject({
    metric: 'disagreement',
    outputs: ['second'],
    notPromised: ['first'],
  });
  await using full = await InferenceSession.create(path, { policy: 'full', threads: 1 });
  await using skipping = await InferenceSession.create(path, { policy, threads: 1 });
  const known = items(300, 3);
  let changed = 0;
  for (const feeds of known) {
    const [a, b] = [await full.run(feeds), await skipping.run(feeds)].map(({ second }) => {
      const [no, yes] = second!.data as Float32Array;
      return no! >= yes!;
    });
    changed += Number(a !== b);
  }
  const { loss } = (await evaluate(path, known, { policy, threads: 1 })).skip;
  expect(loss!.mean).toBeCloseTo(changed / known.length, 9);
  expect(loss!.mean).toBeLessThan(0.2);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0);
});
