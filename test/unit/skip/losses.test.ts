/** Losses by hand: what each metric counts, and the most where a number is missing. */
import { lossOf, readerOf } from 'lib/skip/losses.js';
import { partOf } from 'lib/skip/parts.js';
import type { Boxes, Metric } from 'lib/skip/promise.js';
import { complete, isCounted, metricSchema, partsOf } from 'lib/skip/promise.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { tableOf } from '../../helpers/snippets.js';

type Output = readonly [data: TensorData | readonly number[], ...dims: number[]];
/** The loss of two answers, each a list of outputs of one item. */
function loss(metric: Metric, full: readonly Output[], skipping: readonly Output[], boxes?: Boxes): number {
  const parts = (outputs: readonly Output[]) =>
    outputs.map(([data, ...dims]) =>
      partOf(Array.isArray(data) ? Float32Array.from(data) : (data as TensorData), [1, ...dims]),
    );
  const read = readerOf(metric, parts(full), boxes);
  return lossOf(metric)!(read(parts(skipping)), read(parts(full)));
}
const row = (...values: number[]): Output[] => [[values, values.length]];
const N = Number.NaN;

test.each<[Metric, number[], number[], number]>([
  ['disagreement', [1, 3, 2], [0, 3, 9], 1],
  ['disagreement', [1, 3, 2], [2.9, 3, -9], 0],
  ['disagreement', [1, 3, 2], [1, N, 2], 1],
  ['ordinal', [9, 0, 0, 0, 0], [0, 0, 9, 0, 0], 0.5],
  ['ordinal', [9, 0, 0], [8, 0, 0], 0],
  ['ordinal', [9, 0, 0], [N, 0, 0], 1],
  ['labels@0.5', [0.9, 0.1, 0.6], [0.51, 0.49, 0.99], 0],
  ['labels@0.5', [0.9, 0.1, 0.6], [0.9, 0.1, 0.5], 1],
  ['labels@0.5', [0.9, 0.1], [0.9, N], 1],
  ['missed@0.5', [0.9, 0.1], [0.9, 0.9], 0],
  ['missed@0.5', [0.9, 0.1], [0.1, 0.9], 1],
  ['missed@0.5', [0.9, 0.1], [N, 0.1], 1],
  ['added@0.5', [0.9, 0.1], [0.1, 0.1], 0],
  ['added@0.5', [0.9, 0.1], [0.9, 0.6], 1],
  ['added@0.5', [0.9, 0.1], [0.9, N], 1],
  ['labels@-1', [-2, 0], [-1.5, -0.5], 0],
  ['absolute@0.5', [1, 2], [1.5, 1.5], 0],
  ['absolute@0.5', [1, 2], [1, 2.6], 1],
  ['absolute@0.5', [1, 2], [1, N], 1],
  ['excess@0.5', [1, 2], [1.5, 2], 0],
  ['excess@0.5', [1, 2], [1, 2.75], 0.5],
  ['excess@0.5', [1, 2], [9, 2], 1],
  ['excess@0.5', [1, 2], [N, 2], 1],
  ['relative', [3, 4], [3, 3], 0.2],
  ['relative', [3, 4], [3, N], 1],
  ['relative@0.25', [3, 4], [3, 3], 0],
  ['relative@0.1', [3, 4], [3, 3], 1],
  ['relative@0.1', [3, 4], [N, 4], 1],
  ['cosine', [1, 0], [0, 2], 1],
  ['cosine', [1, 0], [-3, 0], 2],
  ['ranking', [3, 2, 1], [3, 2, 1], 0],
  ['ranking', [3, 2, 1], [1, 2, 3], 1],
  ['ranking', [3, 2, 1], [2, 3, 1], 1 / 3],
  ['ranking', [3, 2, 1], [N, 3, 1], 2 / 3],
])('%s of %j and %j', (metric, full, skipping, expected) => {
  expect(loss(metric, row(...full), row(...skipping))).toBeCloseTo(expected, 6);
});

/** Two classes of four pixels, channels first: the second class where a digit is 1. */
const map = (digits: string): Output[] => {
  const second = [...digits].map(Number);
  return [[[...second.map((one) => 1 - one), ...second], 2, 2, 2]];
};
test.each<[Metric, Output[], Output[], number]>([
  ['pixels', map('0011'), map('0011'), 0],
  ['pixels', map('0011'), map('0111'), 0.25],
  // Of the first class 1 of 2 pixels, of the second 2 of 3.
  ['miou', map('0011'), map('0111'), 1 - (1 / 2 + 2 / 3) / 2],
  ['miou', map('0000'), map('0000'), 0],
  ['miou', map('0000'), map('1111'), 1],
  ['pixels@0.5', [[[0.1, 0.9], 1, 1, 2]], [[[0.6, 0.7], 1, 1, 2]], 0.5],
  ['pixels', [[BigInt64Array.of(1n, 2n, 3n, 4n), 2, 2]], [[BigInt64Array.of(1n, 2n, 0n, 4n), 2, 2]], 0.25],
  ['pixels', [[[1, 0, 0, 1], 2, 1, 2]], [[[N, 0, 0, 1], 2, 1, 2]], 0.5],
  ['tokens', [[[1, 0, 0, 1], 2, 2]], [[[0, 1, 0, 1], 2, 2]], 0.5],
  ['tokens', [[Int32Array.of(5, 6, 7), 3]], [[Int32Array.of(5, 6, 8), 3]], 1 / 3],
  // "ab" from a-a-blank-b, against "b" and "ba".
  ['ctc@0', [[Int32Array.of(1, 1, 0, 2), 4]], [[Int32Array.of(0, 0, 2, 2), 4]], 0.5],
  ['ctc@0', [[Int32Array.of(1, 1, 0, 2), 4]], [[Int32Array.of(2, 1, 0, 0), 4]], 1],
  ['ctc@0', [[Int32Array.of(1, 0, 1, 0), 4]], [[Int32Array.of(1, 1, 1, 0), 4]], 0.5],
  ['ctc@3', [[Int32Array.of(3, 3), 2]], [[Int32Array.of(3, 3), 2]], 0],
])('%s of maps and sequences', (metric, full, skipping, expected) => {
  expect(loss(metric, full, skipping)).toBeCloseTo(expected, 6);
});

describe('boxes', () => {
  const corners = { form: 'corners', score: 0.5 } as const;
  const boxes = (...rows: number[][]): Output[] => [
    [rows.flatMap((one) => one.slice(0, 4)), rows.length, 4],
    [rows.map((one) => one[4]!), rows.length],
    [Int32Array.from(rows, (one) => one[5]!), rows.length],
  ];
  const [A, B] = [
    [0, 0, 10, 10, 0.9, 1],
    [20, 20, 30, 30, 0.8, 2],
  ] as const;

  test.each<[string, Output[], number]>([
    ['the same', boxes([...A], [...B]), 0],
    // 10 x 8 of 10 x 12: an IoU of 2 / 3.
    ['one that moves by a fifth', boxes([0, 2, 10, 12, 0.9, 1], [...B]), 0],
    ['one that moves by a half', boxes([0, 5, 10, 15, 0.9, 1], [...B]), 0.5],
    ['one of another class', boxes([0, 0, 10, 10, 0.9, 2], [...B]), 0.5],
    ['one whose score falls below the threshold', boxes([0, 0, 10, 10, 0.4, 1], [...B]), 1 / 3],
    ['none', boxes([0, 0, 0, 0, 0, 0]), 1],
    ['two for one', boxes([...A], [...A], [...B]), 1 / 5],
    ['one without a number', boxes([N, 0, 10, 10, 0.9, 1], [...B]), 0.5],
  ])('%s', (_, skipping, expected) => {
    expect(loss('boxes@0.5', boxes([...A], [...B]), skipping, corners)).toBeCloseTo(expected, 6);
  });

  test('no box on either side is no loss', () => {
    const none = boxes([0, 0, 1, 1, 0.1, 0]);
    expect(loss('boxes@0.5', none, none, corners)).toBe(0);
  });

  test('each form reads the same boxes', () => {
    const tested = new Set<string>();
    const read = (form: Boxes['form'], outputs: readonly Output[]) => {
      tested.add(form);
      const parts = outputs.map(([data, ...dims]) =>
        partOf(Float32Array.from(data as number[]), [1, ...dims]),
      );
      return [...readerOf('boxes@0.5', parts, { form, score: 0.5 })(parts)].map((x) => Number(x.toFixed(4)));
    };
    const rows = [0, 0, 10, 10, 0, 0.9, 20, 20, 30, 30, 1, 0.8];
    const scores: Output = [[0.9, 0.1, 0.2, 0.8, 0.3, 0.1], 3, 2];
    expect(read('corners', [[[0, 0, 10, 10, 20, 20, 30, 30, 1, 1, 2, 2], 3, 4], scores])).toEqual(rows);
    const centres = [5, 5, 10, 10, 25, 25, 10, 10, 1, 1, 1, 1];
    expect(read('centres', [[centres, 3, 4], scores])).toEqual(rows);
    // exp(2.1972) = 9, exp(1.3863) = 4: of nine, one and nothing; of nothing, four and one; the third is no box.
    const [nine, four] = [Math.log(9), Math.log(4)];
    const low = -30;
    const logits: Output = [[nine, low, 0, low, four, 0, 0, 0, 9], 3, 3];
    expect(read('detr', [[centres, 3, 4], logits])).toEqual(rows);
    const columns = [0, 1, 2, 3].flatMap((k) => [0, 1, 2].map((box) => centres[4 * box + k]!));
    expect(read('yolo', [[[...columns, 0.9, 0.2, 0.3, 0.1, 0.8, 0.1], 6, 3]])).toEqual(rows);
    // 0.95 * 18 / 19 = 0.9, 0.8 * 1 = 0.8, 0.3 * 1 = 0.3.
    const objects = [
      [5, 5, 10, 10, 0.95, 18 / 19, 0.1],
      [25, 25, 10, 10, 0.8, 0.2, 1],
      [1, 1, 1, 1, 0.3, 1, 0],
    ];
    expect(read('yolov5', [[objects.flat(), 3, 7]])).toEqual(rows);
    // A second box of the same class that overlaps by 9 / 11 is left out.
    const twice = [5, 6, 25, 5, 5, 25, 10, 10, 10, 10, 10, 10, 0.9, 0.85, 0.1, 0.1, 0.1, 0.8];
    expect(read('yolo', [[twice, 6, 3]])).toEqual(rows);
    expect(tableOf('docs/tasks.md', '`boxes`').map(([form]) => form)).toEqual([...tested]);
  });
});

test('metrics have their parameters', () => {
  const valid = [
    'labels',
    'labels@0.5',
    'labels@-2.5',
    'relative',
    'relative@0.02',
    'absolute@1e-3',
    'recall@10',
    'boxes@0.75',
  ];
  const invalid = [
    'absolute',
    'excess',
    'recall',
    'recall@0',
    'boxes@2',
    'cosine@1',
    'labels@',
    'labels@x',
    'absolute@-1',
    'tokens@2',
  ];
  for (const metric of valid)
    expect([metric, metricSchema().safeParse(metric).success]).toEqual([metric, true]);
  for (const metric of invalid)
    expect([metric, metricSchema().safeParse(metric).success]).toEqual([metric, false]);
  expect(partsOf('absolute@1e-3')).toEqual({ name: 'absolute', at: 0.001 });
  expect(
    (['labels', 'missed@0.2', 'boxes', 'ctc', 'relative', 'cosine'] as const).map((metric) =>
      complete(metric, 0),
    ),
  ).toEqual(['labels@0', 'missed@0.2', 'boxes@0.5', 'ctc@0', 'relative', 'cosine']);
  const counted = [
    'disagreement',
    'accuracy',
    'labels@0',
    'missed@0',
    'added@0',
    'absolute@1',
    'relative@1',
  ] as const;
  const means = [
    'probability',
    'ordinal',
    'relative',
    'excess@1',
    'pixels',
    'miou',
    'boxes@0.5',
    'tokens',
    'ctc@0',
    'ranking',
    'cosine',
    'custom',
  ] as const;
  expect([counted.map(isCounted), means.map(isCounted)]).toEqual([
    counted.map(() => true),
    means.map(() => false),
  ]);
});
