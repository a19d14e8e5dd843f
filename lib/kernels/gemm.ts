import { sizeOf } from '../numeric/shapes.js';
import { activate } from './activation.js';
import { dot, packed, packedLength, packWeights } from './dot.js';
import type { Operations } from './operations.js';
import { forEachRow, planRows } from './rows.js';
import { broadcastStrides, denseStrides, floats, type KernelTensor, Scratch } from './tensor.js';

const baseScratch = new Scratch((n) => new Int32Array(n));
const offsetScratch = new Scratch((n) => new Int32Array(n));
const sumScratch = new Scratch((n) => new Float64Array(n));

/** y = act(a*b + c + residual); `residual` may be the same memory as `y`. */
export function gemm(
  a: KernelTensor,
  b: KernelTensor,
  c: KernelTensor | undefined,
  residual: KernelTensor | undefined,
  y: KernelTensor,
  attrs: Operations['gemm'],
): void {
  const k = a.shape.at(-1)!;
  const n = y.shape.at(-1)!;
  const m = sizeOf(y.shape.slice(0, -1));
  const right = { data: floats(b), start: 0, transposed: attrs.transB, constant: b.constant === true };
  multiply(floats(a), 0, right, m, k, n, floats(y), 0, c && floats(c), residual && floats(residual));
  if (attrs.act.kind !== 'none') activate(floats(y), floats(y), m * n, attrs.act);
}

/** numpy.matmul of operands of rank >= 2, with broadcasting of the leading axes; `transB` swaps the last two of b. */
export function matmul(a: KernelTensor, b: KernelTensor, y: KernelTensor, transB: boolean): void {
  const m = y.shape[y.shape.length - 2]!;
  const n = y.shape[y.shape.length - 1]!;
  const k = a.shape[a.shape.length - 1]!;
  const batch = y.shape.slice(0, -2);
  const strides = [
    denseStrides(batch).map((stride) => stride * m * n),
    broadcastStrides(a.shape.slice(0, -2), batch).map((stride) => stride * m * k),
    broadcastStrides(b.shape.slice(0, -2), batch).map((stride) => stride * k * n),
  ];
  const rows = planRows(batch, strides);
  if (sizeOf(y.shape) === 0) return;
  forEachRow(rows, ([yRow = 0, aRow = 0, bRow = 0]) => {
    for (let i = 0; i < rows.length; i++) {
      const start = bRow + i * rows.steps[2]!;
      const right = { data: floats(b), start, transposed: transB, constant: b.constant === true };
      const [yStart, aStart] = [yRow + i * rows.steps[0]!, aRow + i * rows.steps[1]!];
      multiply(floats(a), aStart, right, m, k, n, floats(y), yStart, undefined, undefined);
    }
  });
}

/** The right-hand matrix: (K,N), or (N,K) if transposed, from `start` on. */
interface Right {
  readonly data: Float32Array;
  readonly start: number;
  readonly transposed: boolean;
  readonly constant: boolean;
}

function multiply(
  a: Float32Array,
  aStart: number,
  right: Right,
  m: number,
  k: number,
  n: number,
  y: Float32Array,
  yStart: number,
  bias: Float32Array | undefined,
  residual: Float32Array | undefined,
): void {
  if (m === 1) {
    multiplyVector(a, aStart, right, k, n, y, yStart, bias, residual);
    return;
  }
  const bases = baseScratch.atLeast(m);
  for (let i = 0; i < m; i++) bases[i] = i * k;
  const offsets = offsetScratch.atLeast(k);
  for (let i = 0; i < k; i++) offsets[i] = i;
  const layout = `gemm ${right.start} ${right.transposed} ${k} ${n}`;
  const weights = packed(right.data, right.constant, layout, packedLength(n, k), (to) => {
    const [rowStride, depthStride] = right.transposed ? [k, 1] : [1, n];
    packWeights(right.data, right.start, n, rowStride, k, depthStride, to, 0);
  });
  dot({
    x: a,
    xStart: aStart,
    bases,
    columns: m,
    offsets,
    weights,
    weightsStart: 0,
    rows: n,
    depth: k,
    y,
    yStart,
    yRowStride: 1,
    yColumnStride: n,
    bias,
    biasStart: 0,
    residual,
  });
}

/** One row of a: packing b would cost more than the product, so b is read in place. */
function multiplyVector(
  a: Float32Array,
  aStart: number,
  { data: b, start, transposed }: Right,
  k: number,
  n: number,
  y: Float32Array,
  yStart: number,
  bias: Float32Array | undefined,
  residual: Float32Array | undefined,
): void {
  const sums = sumScratch.atLeast(n);
  if (transposed) {
    for (let j = 0; j < n; j++) {
      const row = start + j * k;
      let even = 0;
      let odd = 0;
      let i = 0;
      for (; i + 1 < k; i += 2) {
        even += a[aStart + i]! * b[row + i]!;
        odd += a[aStart + i + 1]! * b[row + i + 1]!;
      }
      if (i < k) even += a[aStart + i]! * b[row + i]!;
      sums[j] = even + odd;
    }
  } else {
    sums.fill(0, 0, n);
    for (let i = 0; i < k; i++) {
      const factor = a[aStart + i]!;
      const row = start + i * n;
      for (let j = 0; j < n; j++) sums[j]! += factor * b[row + j]!;
    }
  }
  for (let j = 0; j < n; j++) {
    const sum = bias ? sums[j]! + bias[j]! : sums[j]!;
    y[yStart + j] = residual ? sum + residual[yStart + j]! : sum;
  }
}
