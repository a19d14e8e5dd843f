import { NativeBackend } from 'lib/backends/native.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { basisOf } from 'lib/calibrate/fit/basis.js';
import { Chain, type TrainingRows } from 'lib/calibrate/fit/chain.js';
import type { ExitPoint } from 'lib/calibrate/fit/exit-points.js';
import { scaleOf, standardise } from 'lib/calibrate/fit/head-training.js';
import { type Matrix, matrix, multiply, transpose } from 'lib/calibrate/fit/matrices.js';
import { argMax, softmax } from 'lib/numeric/softmax.js';
import { randomFloats } from '../../helpers/random.js';

const backend = new NativeBackend({ threads: 1 });
afterAll(() => backend.release());

/** In double precision, in the plainest way. */
function product(a: Matrix, b: Matrix): number[] {
  return Array.from({ length: a.rows * b.columns }, (_, at) => {
    const [i, j] = [Math.floor(at / b.columns), at % b.columns];
    let sum = 0;
    for (let k = 0; k < a.columns; k++) sum += a.data[i * a.columns + k]! * b.data[k * b.columns + j]!;
    return sum;
  });
}

test('products are those of matrices, with bias and transposed', () => {
  const a = matrix(5, 37, randomFloats(5 * 37, 1));
  const b = matrix(37, 11, randomFloats(37 * 11, 2));
  const bias = randomFloats(11, 3);
  const expected = product(a, b).map((sum, i) => sum + bias[i % 11]!);
  for (const engine of [backend, new ReferenceBackend()]) {
    const found = multiply(engine, a, transpose(b), { transposed: true, bias });
    expect([found.rows, found.columns]).toEqual([5, 11]);
    for (const [i, value] of expected.entries()) expect(found.data[i]).toBeCloseTo(value, 4);
    for (const [i, value] of product(a, b).entries())
      expect(multiply(engine, a, b).data[i]).toBeCloseTo(value, 4);
  }
});

test('products use the weights of now when their array was changed since the last one', async () => {
  const engine = new NativeBackend({ threads: 2 });
  try {
    const ones = matrix(64, 1184, new Float32Array(64 * 1184).fill(1));
    const weights = matrix(32, 1184);
    const wrong = Array.from({ length: 1000 }, (_, n) => n % 7).filter((weight) => {
      weights.data.fill(weight);
      const sums = multiply(engine, ones, weights, { transposed: true }).data;
      return sums.some((sum) => sum !== 1184 * weight);
    });
    expect(wrong).toHaveLength(0);
  } finally {
    await engine.release();
  }
});

describe('the basis of answers', () => {
  test('is each class alone where they are few', () => {
    const { directions, mean } = basisOf(backend, matrix(4, 3, randomFloats(12, 1)), 1);
    expect([...directions.data]).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect([...mean]).toEqual([0, 0, 0]);
  });

  test('holds all scores that a classifier of few features makes, of 200 classes', () => {
    const [rows, features, classes] = [150, 5, 200];
    const seen = matrix(rows, features, randomFloats(rows * features, 1));
    const classifier = matrix(features, classes, randomFloats(features * classes, 2));
    const scores = multiply(backend, seen, classifier, { bias: randomFloats(classes, 3) });
    const { directions, mean } = basisOf(backend, scores, 1);
    expect([directions.rows, directions.columns]).toEqual([classes, 64]);
    // Each score less the mean, projected on the directions, is itself again.
    const squares = Array.from({ length: 64 }, (_, j) =>
      Array.from({ length: classes }, (_, k) => directions.data[k * 64 + j]! ** 2).reduce((a, b) => a + b),
    );
    const centred = matrix(
      1,
      classes,
      scores.data.slice(0, classes).map((score, k) => score - mean[k]!),
    );
    const place = multiply(backend, centred, directions);
    const scaled = matrix(
      1,
      64,
      place.data.map((x, j) => (squares[j]! > 1e-8 ? x / squares[j]! : 0)),
    );
    const again = multiply(backend, scaled, directions, { transposed: true });
    for (let k = 0; k < classes; k++) expect(again.data[k]).toBeCloseTo(centred.data[k]!, 2);
  });
});

/** Rows of two numbers and one that never varies; the class is the sign of the product of the two. */
function quadrants(rows: number, seed: number): { rows: TrainingRows; classes: number[] } {
  const numbers = randomFloats(2 * rows, seed);
  const data = Float32Array.from({ length: 3 * rows }, (_, i) =>
    i % 3 === 2 ? 4 : 100 + 10 * numbers[2 * Math.floor(i / 3) + (i % 3)]!,
  );
  const classes = Array.from({ length: rows }, (_, i) => Number(numbers[2 * i]! * numbers[2 * i + 1]! > 0));
  const targets = Float32Array.from({ length: 2 * rows }, (_, i) =>
    Number(classes[Math.floor(i / 2)] === i % 2),
  );
  const images = Uint32Array.from({ length: rows }, (_, i) => i);
  // The second place sees noise: all it can know is what the first has found.
  const noise = matrix(rows, 2, randomFloats(2 * rows, seed + 100));
  const features = [matrix(rows, 3, data), noise];
  return { rows: { images, features, targets: matrix(rows, 2, targets) }, classes };
}

describe('a chain of heads', () => {
  const { rows } = quadrants(1500, 1);
  const points = [3, 2].map(
    (width, i) =>
      ({ block: { name: `b${i}` }, features: 'mean', width, saving: 0.5 }) as unknown as ExitPoint,
  );
  const basis = basisOf(backend, matrix(2, 2), 1);
  const scales = rows.features.map(scaleOf);
  const standard = rows.features.map(({ rows, columns, data }, i) => {
    const copy = matrix(rows, columns, data.slice());
    standardise(copy, scales[i]!);
    return copy;
  });
  async function train(given: TrainingRows, seed: number, uses: (image: number) => boolean, epochs: number) {
    const chain = new Chain(backend, points, scales, 16, basis, seed, uses);
    try {
      await chain.train({ ...given, features: standard }, epochs, 0, 1);
      return chain.exits();
    } finally {
      chain.release();
    }
  }
  const learn = (seed: number, uses: (image: number) => boolean = () => true, epochs = 60) =>
    train(rows, seed, uses, epochs);

  /** Logits of the heads, one after another, for features of a row. */
  function apply(exits: Awaited<ReturnType<typeof learn>>, seen: readonly Float32Array[]): Float32Array[] {
    let before: Float32Array = new Float32Array(0);
    return exits.map(({ head: { layers } }, i) => {
      const x = matrix(1, seen[i]!.length + before.length, Float32Array.of(...seen[i]!, ...before));
      const [first, last] = layers as [(typeof layers)[number], (typeof layers)[number]];
      const of = ({ weight, bias }: typeof first, inputs: number) => ({
        w: matrix(bias.length, inputs, weight),
        bias,
      });
      const a = of(first, x.columns);
      const { scale, shift, factor } = first.rounding!;
      const bytes = x.data.map((value, j) =>
        Math.min(127, Math.max(-128, Math.round(value * scale[j]! + shift[j]!))),
      );
      const hidden = multiply(backend, matrix(1, x.columns, bytes), a.w, { transposed: true });
      for (const [k, sum] of hidden.data.entries()) hidden.data[k] = sum * factor[k]! + a.bias[k]!;
      for (const [k, value] of hidden.data.entries()) hidden.data[k] = Math.max(0, value);
      const b = of(last, hidden.columns);
      before = hidden.data;
      return multiply(backend, hidden, b.w, { transposed: true, bias: b.bias }).data;
    });
  }
  const rowOf = ({ columns, data }: Matrix, row: number) => data.subarray(row * columns, (row + 1) * columns);

  test('learns what no linear map can, and each head knows what the one before has found', async () => {
    const exits = await learn(5);
    expect(exits.map(({ after, reads }) => [after, reads])).toEqual([
      ['b0', undefined],
      ['b1', 'b0'],
    ]);
    const { rows: fresh, classes } = quadrants(500, 2);
    const right = [0, 0];
    for (const [row, answer] of classes.entries()) {
      const said = apply(
        exits,
        fresh.features.map((features) => rowOf(features, row)),
      );
      for (const [i, logits] of said.entries()) right[i]! += Number(argMax(logits) === answer);
    }
    expect(right[0]! / 500).toBeGreaterThan(0.93);
    expect(right[1]! / 500).toBeGreaterThan(0.9);
    // A feature that never varies has no weight.
    const { weight } = exits[0]!.head.layers[0]!;
    expect(weight.every((own, i) => i % 3 !== 2 || own === 0)).toBe(true);
  });

  test("says the teacher's probabilities", async () => {
    const unsure: TrainingRows = {
      ...rows,
      targets: matrix(
        1500,
        2,
        Float32Array.from({ length: 3000 }, (_, i) => [0.8, 0.2][i % 2]!),
      ),
    };
    const exits = await train(unsure, 1, () => true, 20);
    const likely = Array.from({ length: 200 }, (_, row) => {
      const said = apply(
        exits,
        rows.features.map((features) => rowOf(features, row)),
      );
      return softmax(said[0]!)[0]!;
    });
    expect(likely.reduce((a, b) => a + b) / likely.length).toBeCloseTo(0.8, 1);
  });

  test('is the same for the same seed, and another for another seed or other images', async () => {
    const first = await learn(5, undefined, 2);
    expect(await learn(5, undefined, 2)).toEqual(first);
    expect(await learn(6, undefined, 2)).not.toEqual(first);
    expect(await learn(5, (image) => image % 2 === 0, 2)).not.toEqual(first);
  });

  test('never sees images that it is not to learn from', async () => {
    const spoilt: TrainingRows = {
      ...rows,
      targets: {
        ...rows.targets,
        data: rows.targets.data.map((target, i) => (Math.floor(i / 2) % 2 === 0 ? target : 1 - target)),
      },
    };
    const even = (image: number) => image % 2 === 0;
    expect(await train(spoilt, 5, even, 2)).toEqual(await learn(5, even, 2));
  });
});
