import { altered } from '../../../lib/calibrate/augment.js';
import { applyHead, fitMlp, type Samples } from '../../../lib/calibrate/mlp.js';
import { generator, shuffle } from '../../../lib/calibrate/random.js';
import { argMax, softmax } from '../../../lib/skip/scores.js';
import { randomFloats } from '../../helpers/random.js';

/** Rows of two numbers and one that never varies; the class is the sign of the product of the two. */
function quadrants(rows: number, seed: number) {
  const numbers = randomFloats(2 * rows, seed);
  const data = Float32Array.from({ length: 3 * rows }, (_, i) =>
    i % 3 === 2 ? 4 : 100 + 10 * numbers[2 * Math.floor(i / 3) + (i % 3)]!,
  );
  const classes = Array.from({ length: rows }, (_, i) => Number(numbers[2 * i]! * numbers[2 * i + 1]! > 0));
  const targets = Float32Array.from({ length: 2 * rows }, (_, i) =>
    Number(classes[Math.floor(i / 2)] === i % 2),
  );
  const features: Samples = { rows, width: 3, data };
  return { features, targets: { rows, width: 2, data: targets } as Samples, classes };
}

describe('the small network', () => {
  const lesson = quadrants(1500, 1);
  const training = { hidden: 10, epochs: 40, seed: 5 };
  const layers = fitMlp(lesson.features, lesson.targets, training);

  test('learns what no linear map can, from features of any scale', () => {
    const { features, classes } = quadrants(500, 2);
    const right = classes.filter((answer, row) => {
      const x = features.data.subarray(3 * row, 3 * row + 3);
      return argMax(applyHead({ features: 'mean', layers }, x)) === answer;
    });
    expect(right.length / classes.length).toBeGreaterThan(0.93);
  });

  test('gives no weight to a feature that never varies', () => {
    expect(layers[0]!.weight.every((weight, i) => i % 3 !== 2 || weight === 0)).toBe(true);
  });

  test('is the same for the same seed, and another for another', () => {
    expect(fitMlp(lesson.features, lesson.targets, training)).toEqual(layers);
    expect(fitMlp(lesson.features, lesson.targets, { ...training, seed: 6 })).not.toEqual(layers);
  });

  test("says the teacher's probabilities", () => {
    const rows = 800;
    const sure: Samples = {
      rows,
      width: 2,
      data: Float32Array.from({ length: 2 * rows }, (_, i) => [0.8, 0.2][i % 2]!),
    };
    const { features } = quadrants(rows, 3);
    const layers = fitMlp(features, sure, training);
    const said = Array.from({ length: 200 }, (_, row) => {
      const x = features.data.subarray(3 * row, 3 * row + 3);
      return softmax(applyHead({ features: 'mean', layers }, x))[0]!;
    });
    expect(said.reduce((a, b) => a + b) / said.length).toBeCloseTo(0.8, 1);
  });
});

describe('altered copies', () => {
  const [channels, height, width] = [2, 8, 16] as const;
  const image = randomFloats(channels * height * width, 7);
  const still = () => 0.5;

  test('a copy that is neither shifted nor mirrored is the image', () => {
    expect(altered(image, [channels, height, width], false, still)).toEqual(image);
  });

  test('a mirrored copy is mirrored', () => {
    const copy = altered(image, [channels, height, width], true, still);
    expect(copy[3 * width + 2]).toBe(image[3 * width + 13]);
    expect(altered(copy, [channels, height, width], true, still)).toEqual(image);
  });

  test('a shift is an eighth at most and repeats the border', () => {
    const copy = altered(image, [channels, height, width], false, () => 0);
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const from = (c * height + Math.max(0, y - 1)) * width + Math.max(0, x - 2);
          expect(copy[(c * height + y) * width + x]).toBe(image[from]);
        }
      }
    }
  });
});

test('the generator is uniform and depends on the seed', () => {
  const numbers = Array.from({ length: 8000 }, generator(3));
  for (let part = 0; part < 8; part++) {
    const share = numbers.filter((u) => u >= part / 8 && u < (part + 1) / 8).length / numbers.length;
    expect(Math.abs(share - 1 / 8)).toBeLessThan(0.02);
  }
  expect(Array.from({ length: 5 }, generator(4))).not.toEqual(numbers.slice(0, 5));
});

test('a shuffle keeps all and moves most', () => {
  const values = Array.from({ length: 100 }, (_, i) => i);
  shuffle(values, generator(1));
  expect(values.filter((value, i) => value === i).length).toBeLessThan(10);
  expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
});
