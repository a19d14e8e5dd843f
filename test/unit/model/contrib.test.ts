/** Operators of which ONNX has no cases here, by their formulas in double precision. */
import { Tensor } from 'lib/index.js';
import { randomTensor, runNode } from '../../helpers/onnx-run.js';
import { activation } from '../../helpers/oracle.js';

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual).toHaveLength(expected.length);
  for (const [i, value] of expected.entries())
    expect(Math.abs(actual[i]! - value)).toBeLessThan(1e-5 * (1 + Math.abs(value)));
}

const numbers = (tensor: Tensor) => Array.from(tensor.data as Float32Array);
const [x, other, row, bias] = [
  randomTensor([2, 3, 4], 1),
  randomTensor([2, 3, 4], 2),
  randomTensor([4], 3),
  randomTensor([4], 4),
];
const columns = (tensor: Tensor) => numbers(x).map((_, i) => numbers(tensor)[i % 4]!);
/** Rows of four, each by `of`. */
const byRow = (values: readonly number[], of: (row: number[]) => number[]) =>
  Array.from({ length: values.length / 4 }, (_, i) => of(values.slice(4 * i, 4 * i + 4))).flat();
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const layerNorm = (values: readonly number[], gamma: Tensor, beta: Tensor | undefined, epsilon: number) =>
  byRow(values, (line) => {
    const deviation = Math.sqrt(mean(line.map((v) => (v - mean(line)) ** 2)) + epsilon);
    return line.map(
      (v, i) => ((v - mean(line)) / deviation) * numbers(gamma)[i]! + (beta ? numbers(beta)[i]! : 0),
    );
  });
const rmsNorm = (values: readonly number[], gamma: Tensor, epsilon: number) =>
  byRow(values, (line) =>
    line.map((v, i) => (v / Math.sqrt(mean(line.map((u) => u * u)) + epsilon)) * numbers(gamma)[i]!),
  );

test.each([
  ['com.microsoft.BiasGelu', 'gelu', true],
  ['com.microsoft.FastGelu', 'geluTanh', true],
  ['com.microsoft.FastGelu', 'geluTanh', false],
  ['com.microsoft.Gelu', 'gelu', false],
] as const)('%s is %s of a sum', async (op, kind, biased) => {
  const [y] = await runNode(op, biased ? [x, row] : [x]);
  const sums = numbers(x).map((v, i) => v + (biased ? columns(row)[i]! : 0));
  expectClose(
    y!.data,
    sums.map((v) => activation({ kind, alpha: 0, beta: 0 }, v)),
  );
});

test.each([
  ['com.microsoft.QuickGelu', {}, 1.702],
  ['Swish', { alpha: 0.5 }, 0.5],
  ['Swish', {}, 1],
] as const)('%s %j', async (op, attributes, alpha) => {
  const [y] = await runNode(op, [x], attributes);
  expectClose(
    y!.data,
    numbers(x).map((v) => v / (1 + Math.exp(-alpha * v))),
  );
});

test.each(['RMSNormalization', 'SimplifiedLayerNormalization'])(
  '%s divides by the root of the mean square',
  async (op) => {
    const [y] = await runNode(op, [x, row], { epsilon: 0.25 });
    expectClose(y!.data, rmsNorm(numbers(x), row, 0.25));
  },
);

test('SkipLayerNormalization normalises a sum, which is an output too', async () => {
  const outputs = ['y', '', '', 'sum'];
  const sums = numbers(x).map((v, i) => v + numbers(other)[i]!);
  const [y, sum] = await runNode(
    'com.microsoft.SkipLayerNormalization',
    [x, other, row, bias, bias],
    { epsilon: 0.25 },
    outputs,
  );
  const biased = sums.map((v, i) => v + columns(bias)[i]!);
  expectClose(sum!.data, biased);
  expectClose(y!.data, layerNorm(biased, row, bias, 0.25));
  const [z] = await runNode('com.microsoft.SkipSimplifiedLayerNormalization', [x, other, row], {
    epsilon: 0.25,
  });
  expectClose(z!.data, rmsNorm(sums, row, 0.25));
});

test('EmbedLayerNormalization sums rows of three tables and counts the tokens', async () => {
  const ids = new Tensor('int32', [2, 0, 1, 1], [2, 2]);
  const segments = new Tensor('int32', [1, 0, 0, 1], [2, 2]);
  const mask = new Tensor('int32', [1, 0, 1, 1], [2, 2]);
  const [words, places, kinds] = [randomTensor([3, 4], 5), randomTensor([2, 4], 6), randomTensor([2, 4], 7)];
  const operands = [ids, segments, words, places, kinds, row, bias, mask];
  const [y, tokens] = await runNode('com.microsoft.EmbedLayerNormalization', operands, { epsilon: 0.25 }, [
    'y',
    'tokens',
  ]);
  const table = (tensor: Tensor, at: number) => numbers(tensor).slice(4 * at, 4 * at + 4);
  const sums = [0, 1, 2, 3].flatMap((token) => {
    const [word, kind] = [
      table(words, ids.data[token] as number),
      table(kinds, segments.data[token] as number),
    ];
    return table(places, token % 2).map((v, i) => v + word[i]! + kind[i]!);
  });
  expectClose(y!.data, layerNorm(sums, row, bias, 0.25));
  expect(tokens!.data).toEqual([1, 2]);
});

test('FusedMatMul transposes its operands and scales the product', async () => {
  const [a, b] = [
    new Tensor(Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]),
    new Tensor(Float32Array.of(1, 0, 2, 0, 1, 3), [2, 3]),
  ];
  const [y] = await runNode('com.microsoft.FusedMatMul', [a, b], { transA: 1, transB: 1, alpha: 0.5 });
  // a' = [[1, 3, 5], [2, 4, 6]], b' = [[1, 0], [0, 1], [2, 3]]
  expect(y).toEqual({ dims: [2, 2], data: [5.5, 9, 7, 11] });
});

test('FusedGemm and FusedConv apply their activation last', async () => {
  const [a, b] = [
    new Tensor(Float32Array.of(1, -2), [1, 2]),
    new Tensor(Float32Array.of(1, 0, 0, 1), [2, 2]),
  ];
  const leaky = { activation: 'LeakyRelu', activation_alpha: 0.25 };
  expect((await runNode('com.microsoft.FusedGemm', [a, b], leaky))[0]!.data).toEqual([1, -0.5]);
  const [image, weight] = [
    new Tensor(Float32Array.of(1, -2), [1, 1, 1, 2]),
    new Tensor(Float32Array.of(3), [1, 1, 1, 1]),
  ];
  const operands = [image, weight, undefined, new Tensor(Float32Array.of(-4, 7), [1, 1, 1, 2])];
  expect((await runNode('com.microsoft.FusedConv', operands, { activation: 'Relu' }))[0]!.data).toEqual([
    0, 1,
  ]);
});

describe('rotary embeddings turn pairs by the angle of their position', () => {
  const [heads, length, size] = [2, 3, 4];
  const angle = (position: number, pair: number) => position / 10 ** pair;
  const cache = (of: (angle: number) => number) =>
    new Tensor(
      Float32Array.from({ length: 20 }, (_, i) => of(angle(Math.floor(i / 2), i % 2))),
      [10, 2],
    );
  const given = randomTensor([1, heads, length, size], 8);

  test.each([
    ['RotaryEmbedding', 0, [2, 0, 5]],
    ['RotaryEmbedding', 1, [2, 0, 5]],
    ['com.microsoft.RotaryEmbedding', 0, [4]],
  ] as const)('%s, interleaved %i, positions %j', async (op, interleaved, positions) => {
    const first = positions.length === 1;
    const ids = new Tensor('int64', positions.map(BigInt), first ? [1] : [1, length]);
    const caches = [cache(Math.cos), cache(Math.sin)];
    const operands = op === 'RotaryEmbedding' ? [given, ...caches, ids] : [given, ids, ...caches];
    const [y] = await runNode(op, operands, { interleaved });
    const values = numbers(given);
    const expected = values.map((_, i) => {
      const [base, at] = [i - (i % size), i % size];
      const pair = interleaved ? Math.floor(at / 2) : at % 2;
      const [real, imaginary] = interleaved ? [2 * pair, 2 * pair + 1] : [pair, pair + 2];
      const token = Math.floor(i / size) % length;
      const theta = angle(first ? positions[0] + token : positions[token]!, pair);
      const [a, b] = [values[base + real]!, values[base + imaginary]!];
      return at === real
        ? a * Math.cos(theta) - b * Math.sin(theta)
        : a * Math.sin(theta) + b * Math.cos(theta);
    });
    expectClose(y!.data, expected);
  });
});
