import { sizeOf } from '../numeric/shapes.js';
import type { Operations } from './operations.js';
import { floats, type KernelTensor, Scratch } from './tensor.js';
import { type Geometry, geometry, type Triple, volume } from './window.js';

// Looked up once: a global is slow to reach from code that runs inside a vm context.
const { max } = Math;

const sumScratch = new Scratch((n) => new Float64Array(n));
const cellScratch = new Scratch((n) => new Int32Array(n));

/**
 * Max or average over windows. Max ignores padding and propagates NaN. A window in the padding has the maximum
 * -Infinity with index -1, and the average 0. Of equal maxima, the first gives the index.
 */
export function pool(
  x: KernelTensor,
  y: KernelTensor,
  indices: KernelTensor | undefined,
  attrs: Operations['pool'],
): void {
  const geo = geometry(x.shape, y.shape, attrs.kernel, attrs);
  const planes = x.shape[0]! * x.shape[1]!;
  if (sizeOf(y.shape) === 0) return;
  if (x.dtype !== 'float32') {
    // Bytes are exact as float32.
    const [from, to] = [x, y].map(({ shape }) => ({
      dtype: 'float32' as const,
      shape,
      data: new Float32Array(sizeOf(shape)),
    })) as [KernelTensor, KernelTensor];
    floats(from).set(x.data as Uint8Array);
    pool(from, to, indices, attrs);
    (y.data as Uint8Array).set(floats(to));
    return;
  }
  if (attrs.kind === 'avg') average(floats(x), floats(y), planes, geo, attrs.countIncludePad);
  else if (indices === undefined) maximum(floats(x), floats(y), planes, geo);
  else maximumWithIndices(floats(x), floats(y), indices, planes, geo, attrs.columnMajorIndices);
}

/** First tap of a window (whose first tap lies at `start`) that is inside [0, length). */
function firstTap(start: number, dilation: number): number {
  return start < 0 ? Math.ceil(-start / dilation) : 0;
}

/** One past the last such tap. */
function lastTap(start: number, dilation: number, kernel: number, length: number): number {
  return Math.min(kernel, Math.ceil((length - start) / dilation));
}

/** Taps of the window at output position `at` of one axis that are inside the input: [first, last). */
function tapsInside(geo: Geometry, axis: 0 | 1 | 2, at: number): [first: number, last: number] {
  const start = at * geo.stride[axis] - geo.padBegin[axis];
  return [
    firstTap(start, geo.dilation[axis]),
    lastTap(start, geo.dilation[axis], geo.kernel[axis], geo.input[axis]),
  ];
}

/** Cells that the window at `at` counts along one axis: those inside the input, or inside the padded input. */
function cellsCounted(geo: Geometry, axis: 0 | 1 | 2, at: number, padded: boolean): number {
  const start = at * geo.stride[axis] - geo.padBegin[axis];
  const first = padded ? 0 : firstTap(start, geo.dilation[axis]);
  const length = padded ? geo.input[axis] + geo.padEnd[axis] : geo.input[axis];
  return Math.max(0, lastTap(start, geo.dilation[axis], geo.kernel[axis], length) - first);
}

/** Positions of one axis, [first, last), for which the tap at `shift` from the window's start is inside the input. */
function positionsInside(shift: number, stride: number, input: number, output: number): [number, number] {
  const first = shift < 0 ? Math.ceil(-shift / stride) : 0;
  return [first, Math.min(output, Math.ceil((input - shift) / stride))];
}

/**
 * Walks the windows row by row of the output and, within a row, tap by tap, so that the innermost loop runs along the
 * row without tests. `tap` receives the columns [first, last) where it lies inside x, and the position of the first
 * one in x.
 */
function forEachTapOfRow(
  geo: Geometry,
  plane: number,
  d: number,
  h: number,
  tap: (start: number, first: number, last: number) => void,
): void {
  const { input, output, stride, dilation, kernel, padBegin } = geo;
  const [firstD, lastD] = tapsInside(geo, 0, d);
  const [firstH, lastH] = tapsInside(geo, 1, h);
  // Columns of taps that some window of the row has inside: a kernel may be far larger than the input.
  const firstW = firstTap((output[2] - 1) * stride[2] - padBegin[2], dilation[2]);
  const lastW = lastTap(-padBegin[2], dilation[2], kernel[2], input[2]);
  for (let kd = firstD; kd < lastD; kd++) {
    const z = d * stride[0] - padBegin[0] + kd * dilation[0];
    for (let kh = firstH; kh < lastH; kh++) {
      const row = h * stride[1] - padBegin[1] + kh * dilation[1];
      for (let kw = firstW; kw < lastW; kw++) {
        const shift = kw * dilation[2] - padBegin[2];
        const [first, last] = positionsInside(shift, stride[2], input[2], output[2]);
        tap(((plane * input[0] + z) * input[1] + row) * input[2] + shift + first * stride[2], first, last);
      }
    }
  }
}

function average(x: Float32Array, y: Float32Array, planes: number, geo: Geometry, countPad: boolean): void {
  const [depth, height, width] = geo.output;
  const step = geo.stride[2];
  const sums = sumScratch.atLeast(width);
  const cells = cellScratch.atLeast(width);
  for (let w = 0; w < width; w++) cells[w] = cellsCounted(geo, 2, w, countPad);
  const addTap = (start: number, first: number, last: number) => {
    for (let w = first, i = start; w < last; w++, i += step) sums[w]! += x[i]!;
  };
  let to = 0;
  for (let plane = 0; plane < planes; plane++) {
    for (let d = 0; d < depth; d++) {
      for (let h = 0; h < height; h++, to += width) {
        const rows = cellsCounted(geo, 0, d, countPad) * cellsCounted(geo, 1, h, countPad);
        sums.fill(0, 0, width);
        forEachTapOfRow(geo, plane, d, h, addTap);
        for (let w = 0; w < width; w++) {
          const count = rows * cells[w]!;
          y[to + w] = count === 0 ? 0 : sums[w]! / count;
        }
      }
    }
  }
}

/** Sums are int32 and wrap around. */
export function qpool(
  x: KernelTensor,
  y: KernelTensor,
  { squares, terms: [term], ...attrs }: Operations['qpool'],
): void {
  const geo = geometry(x.shape, y.shape, attrs.kernel, attrs);
  const planes = x.shape[0]! * x.shape[1]!;
  const [depth, height, width] = geo.output;
  const [from, to] = [x.data as Uint8Array, floats(y)];
  const step = geo.stride[2];
  const sums = sumScratch.atLeast(width);
  const addTap = (start: number, first: number, last: number) => {
    for (let w = first, i = start; w < last; w++, i += step) {
      const number = from[i]! - term.zero;
      sums[w]! += squares ? number * number : number;
    }
  };
  let at = 0;
  for (let plane = 0; plane < planes; plane++) {
    for (let d = 0; d < depth; d++) {
      for (let h = 0; h < height; h++, at += width) {
        sums.fill(0, 0, width);
        forEachTapOfRow(geo, plane, d, h, addTap);
        for (let w = 0; w < width; w++) to[at + w] = Math.fround(sums[w]! | 0) * Math.fround(term.factor);
      }
    }
  }
}

function maximum(x: Float32Array, y: Float32Array, planes: number, geo: Geometry): void {
  const [depth, height, width] = geo.output;
  const step = geo.stride[2];
  let to = 0;
  const maxTap = (start: number, first: number, last: number) => {
    for (let w = to + first, i = start; w < to + last; w++, i += step) y[w] = max(y[w]!, x[i]!);
  };
  y.fill(Number.NEGATIVE_INFINITY, 0, planes * volume(geo.output));
  for (let plane = 0; plane < planes; plane++) {
    for (let d = 0; d < depth; d++) {
      for (let h = 0; h < height; h++, to += width) forEachTapOfRow(geo, plane, d, h, maxTap);
    }
  }
}

function maximumWithIndices(
  x: Float32Array,
  y: Float32Array,
  indices: KernelTensor,
  planes: number,
  geo: Geometry,
  columnMajor: boolean,
): void {
  const { input, output, stride, dilation, padBegin } = geo;
  const to = indices.data as BigInt64Array;
  let p = 0;
  for (let plane = 0; plane < planes; plane++) {
    const start = plane * volume(input);
    for (let d = 0; d < output[0]; d++) {
      const [firstD, lastD] = tapsInside(geo, 0, d);
      for (let h = 0; h < output[1]; h++) {
        const [firstH, lastH] = tapsInside(geo, 1, h);
        for (let w = 0; w < output[2]; w++, p++) {
          const [firstW, lastW] = tapsInside(geo, 2, w);
          let best = Number.NEGATIVE_INFINITY;
          let at = -1;
          for (let kd = firstD; kd < lastD; kd++) {
            const z = d * stride[0] - padBegin[0] + kd * dilation[0];
            for (let kh = firstH; kh < lastH; kh++) {
              const row = (z * input[1] + h * stride[1] - padBegin[1] + kh * dilation[1]) * input[2];
              for (let kw = firstW; kw < lastW; kw++) {
                const i = row + w * stride[2] - padBegin[2] + kw * dilation[2];
                const v = x[start + i]!;
                // The first tap counts unconditionally; then a NaN replaces any number, and nothing replaces a NaN.
                if (at < 0 || (!(v <= best) && !Number.isNaN(best))) {
                  best = v;
                  at = i;
                }
              }
            }
          }
          y[p] = best;
          to[p] = BigInt(at < 0 ? at : start + (columnMajor ? columnMajorIndex(at, input) : at));
        }
      }
    }
  }
}

function columnMajorIndex(at: number, [depth, height, width]: Triple): number {
  const w = at % width;
  const h = Math.floor(at / width) % height;
  const d = Math.floor(at / (width * height));
  return (w * height + h) * depth + d;
}
