import { NativeBackend } from 'lib/backends/native.js';
import { Fitter } from 'lib/calibrate/fit/folds.js';
import { altered, copiesOf, recoloured } from 'lib/calibrate/fit/rows.js';
import { ResumableBackend } from 'lib/calibrate/run/resume.js';
import { contentHash, splitItems } from 'lib/calibrate/split.js';
import { taskOf } from 'lib/calibrate/task.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { generator, shuffle } from 'lib/numeric/random.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import { colours, itemsFrom } from '../../helpers/ladders.js';
import { randomFloats } from '../../helpers/random.js';

afterAll(removeFolders);

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

test('exits are fitted where they were asked for, also with the state of an earlier run', async () => {
  const backend = new NativeBackend({ threads: 1 });
  try {
    const model = await loadModel(foreign({ blocks: 3 }));
    const program = compileModel(model, new Map([['picture', { shape: [1, 3, 16, 16] }]]));
    const all = colours(170);
    const items = Array.from({ length: 170 }, (_, i) => {
      const { data } = itemsFrom(all, i, i + 1);
      return { input: data, sha256: contentHash(data) };
    });
    const state = folderOf({});
    const chains = async (behind?: ReadonlySet<string>, resumable = true) => {
      const engine = resumable ? await ResumableBackend.open(backend, state) : backend;
      const task = taskOf(engine, program, model.sha256, { maxDisagreement: 0.5, copies: 0 });
      return new Fitter(task, splitItems(items, task, 'fit')).fit(behind);
    };
    const every = await chains();
    const names = every.at(-1)!.map(({ after }) => after);
    expect(names.length).toBeGreaterThan(1);
    const last = new Set(names.slice(-1));
    const some = await chains(last);
    expect(some.map((chain) => chain.map(({ after }) => after))).toEqual(every.map(() => [...last]));
    expect(some).toEqual(await chains(last, false));
    expect(await chains(last)).toEqual(some);
    expect(await chains()).toEqual(every);
  } finally {
    backend.release();
  }
});

test('some copies have at most half of another image of the same fold in them', async () => {
  // Flat images: each copy tells what it is made of.
  const [count, foldOf] = [64, (image: number) => image % 2];
  const level = (image: number) => (foldOf(image) === 0 ? 0 : 1000) + image;
  const source = { count, load: async (image: number) => new Float32Array(16).fill(level(image)) };
  const others: number[] = [];
  let copies = 0;
  for await (const chunk of copiesOf(source, 4 * count, [1, 4, 4], { foldOf }, 1)) {
    for (const { image, input } of chunk) {
      const values = input as Float32Array;
      const off = values[0]! - level(image);
      expect(values.every((value) => value === values[0])).toBe(true);
      expect(Math.abs(off)).toBeLessThan(count / 2);
      if (copies++ < count) expect(off).toBe(0);
      else others.push(off);
    }
  }
  expect(copies).toBe(4 * count);
  const mixed = others.filter((off) => off !== 0).length / others.length;
  expect(mixed).toBeGreaterThan(0.25);
  expect(mixed).toBeLessThan(0.55);
});

test('copies have other colours in proportion to those of the image, whatever its numbers mean', () => {
  const image = randomFloats(3 * 64, 3);
  const other = recoloured(image, 3, generator(5));
  const scaled = recoloured(
    image.map((value) => 100 * value + 7),
    3,
    generator(5),
  );
  for (const [i, value] of other.entries()) expect(scaled[i]).toBeCloseTo(100 * value + 7, 2);
  expect(other).not.toEqual(image);
  expect(other.every((value, i) => Math.abs(value - image[i]!) < 1.5)).toBe(true);
});
