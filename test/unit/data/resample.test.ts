import { join } from 'node:path';
import fc from 'fast-check';
import { binding } from 'lib/backends/addon.js';
import { decodeImage, type RawImage } from 'lib/data/image.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import { draw, drawHere, tapsOf } from 'lib/data/resample.js';
import type { ResizeKernel } from 'lib/data/resize-rule.js';
import { atOnce } from 'lib/util/slices.js';

/** part.png is 37x29 pixels of photo.jpg; FILTER-WIDTHxHEIGHT.png is what PIL 11.1 resizes it to. */
const folder = join(__dirname, 'pil');
const FILTERS: readonly ResizeKernel[] = ['nearest', 'lanczos3', 'linear', 'cubic', 'box', 'hamming'];
const RAW = { do_rescale: false, do_normalize: false };

/** The pixels of planes, interleaved. */
function interleaved({
  data,
  shape: [, channels, height, width],
}: Awaited<ReturnType<Preprocessor['apply']>>) {
  const plane = height * width;
  return Array.from(
    { length: data.length },
    (_, i) => data[(i % channels) * plane + Math.floor(i / channels)]!,
  );
}

describe('resizing gives the pixels of PIL', () => {
  test.each(
    FILTERS.flatMap((filter, resample) => [
      { filter, resample, width: 23, height: 17 },
      { filter, resample, width: 53, height: 31 },
    ]),
  )('$filter to $width x $height', async ({ filter, resample, width, height }) => {
    const part = await decodeImage(join(folder, 'part.png'));
    const expected = await decodeImage(join(folder, `${filter}-${width}x${height}.png`));
    const preprocessor = new Preprocessor(
      { ...RAW, size: { width, height }, resample },
      { channels: 3 },
      'c',
    );
    expect(interleaved(await preprocessor.apply(part, 'part'))).toEqual([...expected.data]);
  });

  test.each([
    ['linear', 2],
    ['cubic', 3],
  ] as const)('of a JPEG that is decoded whole, by native code: %s', async (filter, resample) => {
    const photo = await decodeImage(join(folder, 'photo.jpg'));
    const expected = await decodeImage(join(folder, `${filter}.png`));
    const size = { width: 84, height: 64 };
    const preprocessor = new Preprocessor({ ...RAW, size, resample }, { channels: 3 }, 'c');
    expect(interleaved(await preprocessor.apply(photo, 'photo'))).toEqual([...expected.data]);
  });
});

test('only what is cropped is drawn, with the pixels of the whole', async () => {
  const part = await decodeImage(join(folder, 'part.png'));
  const whole = await decodeImage(join(folder, 'cubic-53x31.png'));
  const crop = { height: 9, width: 12 };
  const config = { ...RAW, size: { width: 53, height: 31 }, resample: 3, crop_size: crop };
  const cropped = await new Preprocessor(config, { channels: 3 }, 'c').apply(part, 'part');
  const [top, left] = [(31 - 9) / 2, Math.floor((53 - 12) / 2)];
  const expected = Array.from({ length: 9 * 12 * 3 }, (_, i) => {
    const [y, x, c] = [Math.floor(i / 36), Math.floor(i / 3) % 12, i % 3];
    return whole.data[((top + y) * 53 + left + x) * 3 + c];
  });
  expect(interleaved(cropped)).toEqual(expected);
});

function noise(width: number, height: number, channels: 1 | 3, seed: number): RawImage {
  let state = seed;
  const data = Uint8Array.from({ length: width * height * channels }, () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    // Extremes, where sums leave 0 to 255, among others.
    return state & 0x10000 ? (state >> 17) & 255 : state & 0x20000 ? 255 : 0;
  });
  return { width, height, channels, data };
}

describe('native code', () => {
  const length = fc.integer({ min: 1, max: 160 });
  const filter = fc.constantFrom(...FILTERS);

  test('draws what plain TypeScript draws, whatever the sizes', async () => {
    const native = jest.spyOn(binding(), 'draw');
    const property = fc.asyncProperty(
      fc.record({ width: length, height: length, toWidth: length, toHeight: length, filter }),
      fc.constantFrom(1 as const, 3 as const),
      fc.nat(),
      async ({ width, height, toWidth, toHeight, filter }, channels, seed) => {
        const image = noise(width, height, channels, seed);
        // Larger than it needs to be, so that there is enough to do for native code.
        const size = { width: toWidth + 150, height: toHeight + 80 };
        const drawing = {
          ...{ image, size, left: 3, top: 5 },
          columns: atOnce(tapsOf({ from: width, to: toWidth, kernel: filter })),
          rows: atOnce(tapsOf({ from: height, to: toHeight, kernel: filter })),
          channels: channels === 1 ? [0, 0, 0] : [2, 1, 0],
          tables: Float32Array.from({ length: 768 }, (_, i) => i),
        };
        const outputs = [draw, drawHere].map(async (how) => {
          const output = new Float32Array(3 * size.width * size.height).fill(-1);
          await how({ ...drawing, output });
          return output;
        });
        const [here, there] = await Promise.all(outputs);
        expect(Buffer.compare(Buffer.from(here!.buffer), Buffer.from(there!.buffer))).toBe(0);
      },
    );
    await fc.assert(property, { numRuns: 60 });
    expect(native.mock.calls.length).toBeGreaterThanOrEqual(60);
  });

  test.each<[string, (args: Parameters<ReturnType<typeof binding>['draw']>) => void]>([
    ['too few pixels', (args) => (args[0] = args[0].subarray(1))],
    ['elements behind the last column', (args) => (args[2][3]! += 1)],
    ['elements before the first row', (args) => (args[4][0] = -1)],
    ['windows that go back', (args) => (args[2][2] = 0)],
    ['too few factors', (args) => (args[3] = args[3].subarray(1))],
    ['factors whose sums overflow', (args) => args[5].fill(0x7fffffff)],
    ['a channel that is not there', (args) => (args[1][9] = 3)],
    ['a plane that is too narrow', (args) => (args[1][3] = 3)],
    ['a place outside of the plane', (args) => (args[1][6] = 1)],
    ['too few tables', (args) => (args[6] = args[6].subarray(1))],
    ['too little room', (args) => (args[7] = args[7].subarray(1))],
    ['no window', (args) => (args[1][7] = 0)],
    ['negative sizes', (args) => (args[1][1] = -20)],
  ])('refuses %s', async (_, spoil) => {
    const taps = atOnce(tapsOf({ from: 20, to: 4, kernel: 'linear' }));
    const numbers = Int32Array.of(20, 20, 3, 4, 4, 0, 0, taps.each, taps.each, 0, 1, 2);
    const axis = () => [taps.firsts.slice(), taps.factors.slice()] as const;
    const args: Parameters<ReturnType<typeof binding>['draw']> = [
      ...[new Uint8Array(1200), numbers, ...axis(), ...axis()],
      ...[new Float32Array(768), new Float32Array(48)],
    ] as never;
    await binding().draw(...args);
    spoil(args);
    expect(() => binding().draw(...args)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

test('factors of each pixel add up to 1, but for their rounding', () => {
  for (const kernel of FILTERS) {
    for (const [from, to] of [
      [7, 3],
      [3, 7],
      [500, 224],
      [1, 5],
      [5, 1],
      [6, 6],
    ] as const) {
      const { each, firsts, factors } = atOnce(tapsOf({ from, to, kernel }));
      expect(firsts).toHaveLength(to);
      for (const [i, first] of firsts.entries()) {
        expect(first).toBeGreaterThanOrEqual(0);
        expect(first + each).toBeLessThanOrEqual(from);
        const sum = factors.subarray(i * each, (i + 1) * each).reduce((all, factor) => all + factor, 0);
        expect(Math.abs(sum - 2 ** 22)).toBeLessThanOrEqual(each);
      }
    }
  }
});

test('nearest: a middle between two elements is rounded as in PIL, which sums up its steps', () => {
  // What PIL 11.1 makes of [0, 1] with seven and fifteen elements.
  const nearest = (to: number) => [...atOnce(tapsOf({ from: 2, to, kernel: 'nearest' })).firsts];
  expect(nearest(7)).toEqual([0, 0, 0, 0, 1, 1, 1]);
  expect(nearest(15)).toEqual([...Array(8).fill(0), ...Array(7).fill(1)]);
  expect([...atOnce(tapsOf({ from: 2, to: 7, kernel: 'nearest', begin: 3, end: 5 })).firsts]).toEqual([0, 1]);
});
