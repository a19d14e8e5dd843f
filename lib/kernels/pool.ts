import type { StepNamed } from '../model/program.js';
import { elementCount, floats, type KernelTensor } from './tensor.js';
import { type Geometry, geometry, type Triple, volume } from './window.js';

/**
 * Max or average over windows. Max ignores padding and propagates NaN; over a window that lies wholly in the padding
 * it is -Infinity with index -1, and such an average is 0. Of equal maxima the first gives the index.
 */
export function pool(
  x: KernelTensor,
  y: KernelTensor,
  indices: KernelTensor | undefined,
  attrs: StepNamed<'pool'>['attrs'],
): void {
  const geo = geometry(x.shape, y.shape, attrs.kernel, attrs);
  const planes = x.shape[0]! * x.shape[1]!;
  if (elementCount(y.shape) === 0) return;
  for (let plane = 0; plane < planes; plane++) {
    if (attrs.kind === 'avg') averagePlane(floats(x), floats(y), plane, geo, attrs.countIncludePad);
    else if (indices === undefined) maxPlane(floats(x), floats(y), plane, geo);
    else maxPlaneWithIndices(floats(x), floats(y), indices, plane, geo, attrs.columnMajorIndices);
  }
}

/** First tap of a window (whose first tap lies at `start`) that is inside [0, length). */
function firstTap(start: number, dilation: number): number {
  return start < 0 ? Math.ceil(-start / dilation) : 0;
}

/** One past the last such tap. */
function lastTap(start: number, dilation: number, kernel: number, length: number): number {
  return Math.min(kernel, Math.ceil((length - start) / dilation));
}

/** Bounds of the taps of one window, per axis: those inside the input, first and one past last. */
class Taps {
  readonly start: [number, number, number] = [0, 0, 0];
  readonly first: [number, number, number] = [0, 0, 0];
  readonly last: [number, number, number] = [0, 0, 0];

  constructor(private readonly geo: Geometry) {}

  /** Sets one axis for output position `at`. */
  set(axis: 0 | 1 | 2, at: number): void {
    const { stride, padBegin, dilation, kernel, input } = this.geo;
    const start = at * stride[axis] - padBegin[axis];
    this.start[axis] = start;
    this.first[axis] = firstTap(start, dilation[axis]);
    this.last[axis] = lastTap(start, dilation[axis], kernel[axis], input[axis]);
  }

  /** Cells of the window that lie inside the input, or inside the padded input. */
  cells(padded: boolean): number {
    let count = 1;
    for (let axis = 0; axis < 3; axis++) {
      const end = padded
        ? lastTap(
            this.start[axis]!,
            this.geo.dilation[axis]!,
            this.geo.kernel[axis]!,
            this.geo.input[axis]! + this.geo.padEnd[axis]!,
          )
        : this.last[axis]!;
      count *= Math.max(0, end - (padded ? 0 : this.first[axis]!));
    }
    return count;
  }
}

/** Calls `window` for every output position of a plane, in order, with the bounds of its taps. */
function forEachWindow(geo: Geometry, window: (p: number, taps: Taps) => void): void {
  const taps = new Taps(geo);
  let p = 0;
  for (let d = 0; d < geo.output[0]; d++) {
    taps.set(0, d);
    for (let h = 0; h < geo.output[1]; h++) {
      taps.set(1, h);
      for (let w = 0; w < geo.output[2]; w++) {
        taps.set(2, w);
        window(p++, taps);
      }
    }
  }
}

function averagePlane(
  x: Float32Array,
  y: Float32Array,
  plane: number,
  geo: Geometry,
  countPad: boolean,
): void {
  const { input, dilation } = geo;
  const xStart = plane * volume(input);
  const yStart = plane * volume(geo.output);
  forEachWindow(geo, (p, taps) => {
    const { start, first, last } = taps;
    let sum = 0;
    for (let d = first[0]; d < last[0]; d++) {
      for (let h = first[1]; h < last[1]; h++) {
        const row = xStart + rowOf(start, dilation, input, d, h);
        const end = row + last[2] * dilation[2];
        for (let i = row + first[2] * dilation[2]; i < end; i += dilation[2]) sum += x[i]!;
      }
    }
    const cells = taps.cells(countPad);
    y[yStart + p] = cells === 0 ? 0 : sum / cells;
  });
}

function maxPlane(x: Float32Array, y: Float32Array, plane: number, geo: Geometry): void {
  const { input, dilation } = geo;
  const xStart = plane * volume(input);
  const yStart = plane * volume(geo.output);
  forEachWindow(geo, (p, { start, first, last }) => {
    let best = Number.NEGATIVE_INFINITY;
    for (let d = first[0]; d < last[0]; d++) {
      for (let h = first[1]; h < last[1]; h++) {
        const row = xStart + rowOf(start, dilation, input, d, h);
        const end = row + last[2] * dilation[2];
        for (let i = row + first[2] * dilation[2]; i < end; i += dilation[2]) {
          const v = x[i]!;
          // False for a NaN on either side: once best is NaN it stays, and a NaN replaces any number.
          if (!(v <= best) && !Number.isNaN(best)) best = v;
        }
      }
    }
    y[yStart + p] = best;
  });
}

function maxPlaneWithIndices(
  x: Float32Array,
  y: Float32Array,
  indices: KernelTensor,
  plane: number,
  geo: Geometry,
  columnMajor: boolean,
): void {
  const { input, dilation } = geo;
  const to = indices.data as BigInt64Array;
  const xStart = plane * volume(input);
  const yStart = plane * volume(geo.output);
  forEachWindow(geo, (p, { start, first, last }) => {
    let best = Number.NEGATIVE_INFINITY;
    let at = -1;
    for (let d = first[0]; d < last[0]; d++) {
      for (let h = first[1]; h < last[1]; h++) {
        const row = rowOf(start, dilation, input, d, h);
        for (let w = first[2]; w < last[2]; w++) {
          const i = row + w * dilation[2];
          const v = x[xStart + i]!;
          if ((at < 0 || !(v <= best)) && !Number.isNaN(best)) {
            best = v;
            at = i;
          }
        }
      }
    }
    y[yStart + p] = best;
    to[yStart + p] = BigInt(at < 0 ? at : xStart + (columnMajor ? columnMajorIndex(at, input) : at));
  });
}

/** Offset, in its plane, of the row of a window that taps (d, h) read; column 0 of the window. */
function rowOf(start: Triple, dilation: Triple, input: Triple, d: number, h: number): number {
  return ((start[0] + d * dilation[0]) * input[1] + start[1] + h * dilation[1]) * input[2] + start[2];
}

function columnMajorIndex(at: number, [depth, height, width]: Triple): number {
  const w = at % width;
  const h = Math.floor(at / width) % height;
  const d = Math.floor(at / (width * height));
  return (w * height + h) * depth + d;
}
