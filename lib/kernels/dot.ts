/**
 * The inner loop that convolutions and matrix products share: 4 rows of packed weights times 2 columns of x, where a
 * column is gathered through an offset table. Sums are kept in double precision and rounded once.
 */
import { Scratch } from './tensor.js';

/** Rows of weights that are computed together. */
export const ROWS = 4;

/** Elements of `rows` x `depth` weights as [ceil(rows/4)][depth][4], missing rows zero. */
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
 * The packed form of `w`, made by `pack`: in scratch memory, or kept as long as `w` lives if it is constant. `layout`
 * distinguishes the ways to pack the same array.
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
  /** Start of column p in x. */
  bases: Int32Array;
  columns: number;
  /** Offset of element k of a column from its base. */
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

/** y[row, column] = sum over k of weights[row, k] * x[column, k] + bias[row] + residual[row, column]. */
export function dot(args: DotArgs): void {
  const paired = args.columns - (args.columns % 2);
  for (let row = 0; row < args.rows; row += ROWS) {
    if (args.rows - row >= ROWS) dotRows(args, row, paired);
    else dotEdge(args, row, args.rows, 0, paired);
    if (paired < args.columns) dotEdge(args, row, Math.min(row + ROWS, args.rows), paired, args.columns);
  }
}

/** Four whole rows, `columns` (an even number of) columns. */
function dotRows(args: DotArgs, row: number, columns: number): void {
  const { x, xStart, bases, offsets, weights: w, depth, y, yRowStride, yColumnStride, residual } = args;
  const weightsStart = args.weightsStart + row * depth;
  const yStart = args.yStart + row * yRowStride;
  const { bias, biasStart } = args;
  const shift0 = bias ? bias[biasStart + row]! : 0;
  const shift1 = bias ? bias[biasStart + row + 1]! : 0;
  const shift2 = bias ? bias[biasStart + row + 2]! : 0;
  const shift3 = bias ? bias[biasStart + row + 3]! : 0;
  for (let column = 0; column < columns; column += 2) {
    const b0 = xStart + bases[column]!;
    const b1 = xStart + bases[column + 1]!;
    let s00 = shift0;
    let s01 = shift0;
    let s10 = shift1;
    let s11 = shift1;
    let s20 = shift2;
    let s21 = shift2;
    let s30 = shift3;
    let s31 = shift3;
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
    const at0 = yStart + column * yColumnStride;
    const at1 = at0 + yRowStride;
    const at2 = at1 + yRowStride;
    const at3 = at2 + yRowStride;
    if (residual) {
      s00 += residual[at0]!;
      s01 += residual[at0 + yColumnStride]!;
      s10 += residual[at1]!;
      s11 += residual[at1 + yColumnStride]!;
      s20 += residual[at2]!;
      s21 += residual[at2 + yColumnStride]!;
      s30 += residual[at3]!;
      s31 += residual[at3 + yColumnStride]!;
    }
    y[at0] = s00;
    y[at0 + yColumnStride] = s01;
    y[at1] = s10;
    y[at1 + yColumnStride] = s11;
    y[at2] = s20;
    y[at2 + yColumnStride] = s21;
    y[at3] = s30;
    y[at3 + yColumnStride] = s31;
  }
}

/** The rest that tiles of four rows and two columns don't cover: rows [row, rowEnd) of one packed group. */
function dotEdge(args: DotArgs, row: number, rowEnd: number, column: number, columnEnd: number): void {
  const { x, offsets, weights: w, depth, y, bias, residual } = args;
  for (let r = row; r < rowEnd; r++) {
    const weightsStart = args.weightsStart + row * depth + (r - row);
    const shift = bias ? bias[args.biasStart + r]! : 0;
    for (let c = column; c < columnEnd; c++) {
      const base = args.xStart + args.bases[c]!;
      let sum = shift;
      for (let k = 0, at = weightsStart; k < depth; k++, at += ROWS) sum += w[at]! * x[base + offsets[k]!]!;
      const at = args.yStart + r * args.yRowStride + c * args.yColumnStride;
      y[at] = residual ? sum + residual[at]! : sum;
    }
  }
}
