import { CholeskyDecomposition, Matrix } from 'ml-matrix';
import type { Layer } from '../skip/head.js';

/**
 * Ridge regression in closed form, on standardised features so that one penalty suits all.
 * @param features items x features
 * @param targets items x outputs
 * @param penalty added to the diagonal of the correlation matrix; 1e-3 or so
 */
export function ridge(
  features: readonly Float32Array[],
  targets: readonly Float32Array[],
  penalty: number,
): Layer {
  const [items, width, outputs] = [features.length, features[0]!.length, targets[0]!.length];
  const mean = columnMeans(features, (value) => value);
  const variances = columnMeans(features, (value, j) => (value - mean[j]!) ** 2);
  // A feature that never varies tells nothing: its weight becomes 0.
  const inverse = variances.map((variance) => (variance > 1e-12 ? 1 / Math.sqrt(variance) : 0));
  const center = columnMeans(targets, (value) => value);
  const x = matrixOf(features, (value, j) => (value - mean[j]!) * inverse[j]!);
  const y = matrixOf(targets, (value, k) => value - center[k]!);
  const transposed = x.transpose();
  const gram = transposed.mmul(x);
  for (let j = 0; j < width; j++) gram.set(j, j, gram.get(j, j) + penalty * items);
  const solution = new CholeskyDecomposition(gram).solve(transposed.mmul(y));

  const weight = new Float32Array(outputs * width);
  const bias = new Float32Array(outputs);
  for (let k = 0; k < outputs; k++) {
    let shift = center[k]!;
    for (let j = 0; j < width; j++) {
      const w = solution.get(j, k) * inverse[j]!;
      weight[k * width + j] = w;
      shift -= w * mean[j]!;
    }
    bias[k] = shift;
  }
  return { weight, bias };
}

function columnMeans(
  rows: readonly Float32Array[],
  f: (value: number, column: number) => number,
): Float64Array {
  const sums = new Float64Array(rows[0]!.length);
  for (const row of rows) {
    for (let j = 0; j < row.length; j++) sums[j]! += f(row[j]!, j);
  }
  return sums.map((sum) => sum / rows.length);
}

function matrixOf(rows: readonly Float32Array[], f: (value: number, column: number) => number): Matrix {
  const matrix = new Matrix(rows.length, rows[0]!.length);
  for (const [i, row] of rows.entries()) {
    for (let j = 0; j < row.length; j++) matrix.set(i, j, f(row[j]!, j));
  }
  return matrix;
}
