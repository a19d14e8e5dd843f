/**
 * A basis of a network's answers. Class scores are a linear map of the network's penultimate features, so on the
 * given images they lie near a space of few dimensions, however many classes there are. A head that locates an answer
 * in that space, with the basis as its last layer, answers like the network's own classifier on those features: for
 * all classes, and without an example of each.
 */
import type { Backend } from '../../backends/backend.js';
import { generator } from '../../numeric/random.js';
import { type Matrix, matrix, multiply, transpose } from './matrices.js';

export interface Basis {
  /** classes x rank: the scores that a unit in each direction adds. */
  readonly directions: Matrix;
  /** Of all scores. */
  readonly mean: Float32Array;
}

/** With at most this many classes, each has a direction of its own. */
const MAX_RANK = 64;
const SWEEPS = 4;

/**
 * The principal directions of the scores, each as long as scores spread along it, by subspace iteration (Halko, Martinsson
 * and Tropp 2011).
 * @param scores rows x classes
 */
export function basisOf(backend: Backend, scores: Matrix, seed: number): Basis {
  const { columns: classes } = scores;
  if (classes <= MAX_RANK) return { directions: identity(classes), mean: new Float32Array(classes) };
  return principal(backend, scores, MAX_RANK, seed);
}

/**
 * The principal directions of rows.
 * @param max at most this many
 */
export function principal(backend: Backend, scores: Matrix, max: number, seed: number): Basis {
  const { rows, columns: classes } = scores;
  const mean = new Float32Array(classes);
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < classes; k++) mean[k]! += scores.data[row * classes + k]! / rows;
  }
  const centred = matrix(
    rows,
    classes,
    scores.data.map((score, i) => score - mean[i % classes]!),
  );
  const turned = transpose(centred);
  const rank = Math.min(max, rows, classes);
  const random = generator(seed);
  let directions = matrix(classes, rank);
  for (let i = 0; i < directions.data.length; i++) directions.data[i] = random() - 0.5;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    directions = multiply(backend, turned, multiply(backend, centred, orthonormal(directions)));
  }
  directions = orthonormal(directions);
  const spread = new Float64Array(rank);
  const { data } = multiply(backend, centred, directions);
  for (const [i, value] of data.entries()) spread[i % rank]! += value ** 2 / rows;
  return {
    mean,
    directions: { ...directions, data: directions.data.map((x, i) => x * Math.sqrt(spread[i % rank]!)) },
  };
}

function identity(size: number): Matrix {
  const result = matrix(size, size);
  for (let i = 0; i < size; i++) result.data[i * size + i] = 1;
  return result;
}

/** The columns made orthogonal to each other and of length 1; one that depends on others becomes 0 (Gram and Schmidt). */
function orthonormal(columns: Matrix): Matrix {
  // As rows they are contiguous.
  const { rows: count, columns: size, data: vectors } = transpose(columns);
  for (let i = 0; i < count; i++) {
    const own = vectors.subarray(i * size, (i + 1) * size);
    const before = norm(own);
    // Twice is enough (Giraud and Langou 2002).
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = vectors.subarray(j * size, (j + 1) * size);
        let shared = 0;
        for (let k = 0; k < size; k++) shared += own[k]! * other[k]!;
        for (let k = 0; k < size; k++) own[k]! -= shared * other[k]!;
      }
    }
    const left = norm(own);
    const scale = left > 1e-6 * before ? 1 / left : 0;
    for (let k = 0; k < size; k++) own[k]! *= scale;
  }
  return transpose({ rows: count, columns: size, data: vectors });
}

function norm(vector: Float32Array): number {
  return Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
}
