/**
 * The one inner loop of convolutions and matrix products: 4 rows of packed weights times 2 columns of x, where a
 * column is gathered through an offset table. Sums are kept in double precision and rounded once.
 */
import { Scratch } from './tensor.js';

/** Rows of weights that are computed together. */
export const ROWS = 4;

/** A matrix of `rows` x `depth` weights as [ceil(rows/4)][depth][4], missing rows zero. */
export interface PackedWeights {
  readonly rows: number;
  readonly depth: number;
  readonly data: Float32Array;
}

export function packedLength(rows: number, depth: number): number {
  return Math.ceil(rows / ROWS) * depth * ROWS;
}

/** Packs w[start + row*rowStride + k*depthStride] into `packed` from `at` on. */
export function packWeights(
  w: Float32Array,
  start: number,
  rows: number,
  rowStride: number,
  depth: number,
  depthStride: number,
  packed: Float32Array,
  at: number,
): void {
  let to = at;
  for (let row = 0; row < rows; row += ROWS) {
    const live = Math.min(ROWS, rows - row);
    for (let k = 0; k < depth; k++, to += ROWS) {
      let from = start + row * rowStride + k * depthStride;
      for (let r = 0; r < ROWS; r++, from += rowStride) packed[to + r] = r < live ? w[from]! : 0;
    }
  }
}

const caches = new WeakMap<Float32Array, Map<string, Float32Array>>();
const packScratch = new Scratch((n) => new Float32Array(n));

/**
 * The packed form of `w`: made by `pack`, in scratch, or kept for as long as `w` lives if it is constant. `layout`
 * tells apart the ways in which the same array is packed.
 */
export function packed(
  w: Float32Array,
  constant: boolean,
  layout: string,
  length: number,
  pack: (to: Float32Array) => void,
): Float32Array {
  if (!constant) {
    const to = packScratch.atLeast(length);
    pack(to);
    return to;
  }
  const ofArray = caches.get(w) ?? new Map<string, Float32Array>();
  caches.set(w, ofArray);
  const kept = ofArray.get(layout);
  if (kept) return kept;
  const to = new Float32Array(length);
  pack(to);
  ofArray.set(layout, to);
  return to;
}

export interface DotArgs {
  x: Float32Array;
  /** Added to every base. */
  xStart: number;
  /** Where column p starts in x. */
  bases: Int32Array;
  columns: number;
  /** Where element k of a column lies, from its base. */
  offsets: Int32Array;
  weights: Float32Array;
  weightsStart: number;
  rows: number;
  depth: number;
  y: Float32Array;
  yStart: number;
  yRowStride: number;
  yColumnStride: number;
  /** One per row, from `biasStart` on. */
  bias: Float32Array | undefined;
  biasStart: number;
  /** Laid out like y; may be y. */
  residual: Float32Array | undefined;
}

const tile = new Float64Array(ROWS * 2);

/** y[row, column] = sum over k of weights[row, k] * x[column, k] + bias[row] + residual[row, column]. */
export function dot(args: DotArgs): void {
  const { bases, columns, rows, depth } = args;
  for (let row = 0; row < rows; row += ROWS) {
    const weightsStart = args.weightsStart + row * depth;
    for (let column = 0; column < columns; column += 2) {
      const base = args.xStart + bases[column]!;
      const next = column + 1 < columns ? args.xStart + bases[column + 1]! : base;
      dotTile(args.x, base, next, args.offsets, args.weights, weightsStart, depth);
      storeTile(args, row, column);
    }
  }
}

function dotTile(
  x: Float32Array,
  b0: number,
  b1: number,
  offsets: Int32Array,
  w: Float32Array,
  weightsStart: number,
  depth: number,
): void {
  let s00 = 0;
  let s01 = 0;
  let s10 = 0;
  let s11 = 0;
  let s20 = 0;
  let s21 = 0;
  let s30 = 0;
  let s31 = 0;
  for (let k = 0, at = weightsStart; k < depth; k++, at += ROWS) {
    const offset = offsets[k]!;
    const x0 = x[b0 + offset]!;
    const x1 = x[b1 + offset]!;
    const w0 = w[at]!;
    s00 += w0 * x0;
    s01 += w0 * x1;
    const w1 = w[at + 1]!;
    s10 += w1 * x0;
    s11 += w1 * x1;
    const w2 = w[at + 2]!;
    s20 += w2 * x0;
    s21 += w2 * x1;
    const w3 = w[at + 3]!;
    s30 += w3 * x0;
    s31 += w3 * x1;
  }
  tile[0] = s00;
  tile[1] = s01;
  tile[2] = s10;
  tile[3] = s11;
  tile[4] = s20;
  tile[5] = s21;
  tile[6] = s30;
  tile[7] = s31;
}

function storeTile(args: DotArgs, row: number, column: number): void {
  const { y, yRowStride, yColumnStride, bias, residual } = args;
  const liveRows = Math.min(ROWS, args.rows - row);
  const liveColumns = Math.min(2, args.columns - column);
  for (let r = 0; r < liveRows; r++) {
    const shift = bias ? bias[args.biasStart + row + r]! : 0;
    let at = args.yStart + (row + r) * yRowStride + column * yColumnStride;
    for (let c = 0; c < liveColumns; c++, at += yColumnStride) {
      const sum = tile[r * 2 + c]! + shift;
      y[at] = residual ? sum + residual[at]! : sum;
    }
  }
}
