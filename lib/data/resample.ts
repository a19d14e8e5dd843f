/**
 * Resized, cropped and normalised pixels, in one pass from a decoded image to planes of floats. Resizing gives the 8-bit values of PIL,
 * whose arithmetic this is (src/libImaging/Resample.c of Pillow): rows first, then columns, with factors of 22 bits behind the point, and
 * 8-bit values in between. Integers are exact, so that native code has the same.
 */
import { type DrawArguments, nativeDrawing } from '../backends/addon.js';
import type { Sliced } from '../util/slices.js';
import type { RawImage } from './image.js';
import { type Window, windowsOfMeans } from './means.js';
import type { ResizeKernel, Size } from './resize-rule.js';

/** How one axis is resized. */
export interface Taps {
  /** How many elements of the input make one of the output. */
  readonly each: number;
  /** For each element of the output the first of them. */
  readonly firsts: Int32Array;
  /** For each of the output `each` factors, in units of 2^-22. */
  readonly factors: Int32Array;
}

/** What becomes of an image, and where it goes. */
export interface Drawing {
  readonly image: RawImage;
  readonly columns: Taps;
  readonly rows: Taps;
  /** For every channel of the output, that of the image. */
  readonly channels: readonly number[];
  /** For every channel of the output, the prepared value of each of the 256 pixel values. */
  readonly tables: Float32Array;
  /** Planes of `size`, one after the other. */
  readonly output: Float32Array;
  readonly size: Size;
  /** Where in a plane the image begins. */
  readonly left: number;
  readonly top: number;
}

const FACTOR_BITS = 22;
const ONE = 1 << FACTOR_BITS;
const HALF = ONE / 2;

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Cubic convolution of Keys (1981) with a = -0.5; 0 <= t. */
function cubic(t: number): number {
  const a = -0.5;
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/** Weight of an element at a distance, and the distance from which on it is 0. */
const FILTERS: Record<Exclude<ResizeKernel, 'nearest'>, { reach: number; weight: (x: number) => number }> = {
  box: { reach: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  linear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    reach: 1,
    weight: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0),
  },
  cubic: { reach: 2, weight: (x) => cubic(Math.abs(x)) },
  lanczos3: { reach: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** An axis of length `from` that is resized to `to`: of the result, the elements from `begin` to before `end`. */
export interface Axis {
  readonly from: number;
  readonly to: number;
  readonly kernel: ResizeKernel;
  readonly begin?: number;
  readonly end?: number;
  /** An element of the input is the mean of so many of the axis. */
  readonly shrunkBy?: number | undefined;
}

/** A very long axis takes long. */
export function* tapsOf({ from, to, kernel, begin = 0, end = to, shrunkBy = 1 }: Axis): Sliced<Taps> {
  const scale = from / to;
  // An axis that keeps its length keeps its elements, whatever the filter.
  if (kernel === 'nearest' || from === to) {
    const firsts = new Int32Array(end - begin);
    // Summed up as in PIL: where the middle of an element is between two others, rounding decides.
    for (let i = 0, at = scale / 2; i < end; i++, at += scale) {
      if (i >= begin) firsts[i - begin] = Math.min(Math.floor(at), from - 1);
    }
    return { each: 1, firsts, factors: new Int32Array(end - begin).fill(ONE) };
  }
  const { reach, weight } = FILTERS[kernel];
  const stretch = Math.max(scale, 1);
  const windowAt = (i: number): Window => {
    const centre = (begin + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const stop = Math.min(from, Math.trunc(centre + reach * stretch + 0.5));
    const weights = Array.from({ length: stop - first }, (_, x) =>
      weight((first + x - centre + 0.5) / stretch),
    );
    const total = weights.reduce((sum, each) => sum + each, 0);
    return { first, weights: weights.map((each) => each / total) };
  };
  const windows: Window[] = [];
  for (let i = 0; i < end - begin; i++) {
    windows.push(windowAt(i));
    yield;
  }
  if (shrunkBy === 1) return yield* asTaps(windows, from);
  return yield* asTaps(windowsOfMeans(windows, from, shrunkBy), Math.ceil(from / shrunkBy));
}

function* asTaps(windows: readonly Window[], length: number): Sliced<Taps> {
  const each = windows.reduce((most, { weights }) => Math.max(most, weights.length), 1);
  // All factors are for elements of the input; those that are no part of a sum are 0.
  const firsts = Int32Array.from(windows, ({ first }) => Math.min(first, length - each));
  const factors = new Int32Array(windows.length * each);
  for (const [i, { first, weights }] of windows.entries()) {
    for (const [x, weight] of weights.entries()) {
      const factor = weight * ONE;
      factors[i * each + first + x - firsts[i]!] = Math.trunc(factor < 0 ? factor - 0.5 : factor + 0.5);
    }
    yield;
  }
  return { each, firsts, factors };
}

/** For so many elements or more, handing the work to another thread takes less time than doing it here. */
const NATIVE_FROM = 1 << 15;

/** Fills in a drawing's output: on another thread if there is much to do and native code is there. */
export async function draw(drawing: Drawing): Promise<void> {
  const { image, output, size, left, top, channels, columns, rows, tables } = drawing;
  const much = image.data.length + output.length >= NATIVE_FROM;
  const native = much ? nativeDrawing() : undefined;
  if (!native) return drawHere(drawing);
  const numbers = [image.width, image.height, image.channels, size.width, size.height, left, top];
  const args: DrawArguments = [
    image.data,
    Int32Array.from([...numbers, columns.each, rows.each, ...channels]),
    columns.firsts,
    columns.factors,
    rows.firsts,
    rows.factors,
    tables,
    output,
  ];
  await native(...args);
}

/** What native code computes, in plain TypeScript. */
export function drawHere(drawing: Drawing): void {
  const { columns, rows } = drawing;
  const isPicked = columns.each === 1 && rows.each === 1;
  for (const c of drawing.channels.keys()) {
    if (isPicked) pick(drawing, c);
    else weigh(drawing, c);
  }
}

/** Fills in a plane with pixels as they are. */
function pick({ image, columns, rows, channels, tables, output, size, left, top }: Drawing, c: number): void {
  const { data, width, channels: step } = image;
  const { firsts } = columns;
  for (let y = 0; y < rows.firsts.length; y++) {
    const from = rows.firsts[y]! * width * step + channels[c]!;
    const to = (c * size.height + top + y) * size.width + left;
    for (let x = 0; x < firsts.length; x++) {
      output[to + x] = tables[256 * c + data[from + firsts[x]! * step]!]!;
    }
  }
}

/** Fills in a plane with sums. */
function weigh(
  { image, columns, rows, channels, tables, output, size, left, top }: Drawing,
  c: number,
): void {
  const { data, channels: step } = image;
  const width = columns.firsts.length;
  const firstRow = rows.firsts[0]!;
  const count = rows.firsts.at(-1)! + rows.each - firstRow;
  // Values outside of 0 to 255 become the nearest of these.
  const narrow = new Uint8ClampedArray(count * width);
  for (let y = 0; y < count; y++) {
    const row = (firstRow + y) * image.width * step + channels[c]!;
    for (let x = 0; x < width; x++) {
      let at = row + columns.firsts[x]! * step;
      let sum = HALF;
      for (let j = x * columns.each; j < (x + 1) * columns.each; j++, at += step) {
        sum += data[at]! * columns.factors[j]!;
      }
      narrow[y * width + x] = sum >> FACTOR_BITS;
    }
  }
  const line = new Uint8ClampedArray(width);
  for (let y = 0; y < rows.firsts.length; y++) {
    const from = (rows.firsts[y]! - firstRow) * width;
    for (let x = 0; x < width; x++) {
      let sum = HALF;
      for (let j = 0; j < rows.each; j++) {
        sum += narrow[from + j * width + x]! * rows.factors[y * rows.each + j]!;
      }
      line[x] = sum >> FACTOR_BITS;
    }
    const to = (c * size.height + top + y) * size.width + left;
    for (let x = 0; x < width; x++) output[to + x] = tables[256 * c + line[x]!]!;
  }
}
