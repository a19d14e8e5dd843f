import { altered } from 'lib/calibrate/fit/rows.js';
import { generator, shuffle } from 'lib/numeric/random.js';
import { randomFloats } from '../../helpers/random.js';

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
