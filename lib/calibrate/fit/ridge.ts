/** Ridge regression in closed form (Hoerl and Kennard 1970), from sums that add up over parts of the rows. */
import { setImmediate } from 'node:timers/promises';
import type { Backend } from '../../backends/backend.js';
import { type Matrix, matrix, multiply, transpose } from './matrices.js';

/** Rows of one product: further ones are added in double precision. */
const CHUNK_ROWS = 2048;
/** Rows of a system that are solved before other work of the thread gets its turn. */
const TURN = 64;

const { sqrt } = Math;

/** y = weight * x + bias. */
export interface Regression {
  /** outputs x inputs. */
  readonly weight: Matrix;
  readonly bias: Float32Array;
}

/** Sums over rows of inputs x and outputs y: all that a regression needs. */
export class NormalEquations {
  /** Of rows, the sum of their weights. */
  #rows = 0;
  readonly #x: Float64Array;
  readonly #y: Float64Array;
  /** inputs x inputs and inputs x outputs. */
  readonly #xx: Float64Array;
  readonly #xy: Float64Array;

  constructor(
    readonly inputs: number,
    readonly outputs: number,
  ) {
    this.#x = new Float64Array(inputs);
    this.#y = new Float64Array(outputs);
    this.#xx = new Float64Array(inputs * inputs);
    this.#xy = new Float64Array(inputs * outputs);
  }

  static sum(parts: readonly NormalEquations[]): NormalEquations {
    const { inputs, outputs } = parts[0]!;
    const total = new NormalEquations(inputs, outputs);
    for (const part of parts) {
      total.#rows += part.#rows;
      addTo(total.#x, part.#x);
      addTo(total.#y, part.#y);
      addTo(total.#xx, part.#xx);
      addTo(total.#xy, part.#xy);
    }
    return total;
  }

  /**
   * @param x rows x inputs
   * @param y rows x outputs
   * @param weights how many times each row counts; once when left out
   */
  add(backend: Backend, x: Matrix, y: Matrix, weights?: Float64Array): void {
    for (let from = 0; from < x.rows; from += CHUNK_ROWS) {
      const [some, targets] = [x, y].map((all) => rowsOf(all, from, from + CHUNK_ROWS));
      const own = weights?.subarray(from, from + CHUNK_ROWS);
      const weighed = own ? scaledRows(some!, own) : some!;
      this.#rows += own ? own.reduce((sum, weight) => sum + weight, 0) : some!.rows;
      addTo(this.#x, columnSums(some!, own));
      addTo(this.#y, columnSums(targets!, own));
      addTo(this.#xx, multiply(backend, weighed, some!, { turned: true }).data);
      addTo(this.#xy, multiply(backend, weighed, targets!, { turned: true }).data);
    }
  }

  /**
   * The regression with the least sum of squared errors, and of `penalty` times the rows times the squares of the weights.
   * @param penalty positive, for inputs of variance 1
   */
  async solve(penalty: number): Promise<Regression> {
    const { inputs, outputs } = this;
    const count = this.#rows;
    const [x, y] = [this.#x.map((sum) => sum / count), this.#y.map((sum) => sum / count)];
    const system = this.#xx.map((sum, at) => {
      const [i, j] = [Math.floor(at / inputs), at % inputs];
      return sum / count - x[i]! * x[j]! + (i === j ? penalty : 0);
    });
    const right = this.#xy.map((sum, at) => sum / count - x[Math.floor(at / outputs)]! * y[at % outputs]!);
    await solveInPlace(system, right, inputs, outputs);
    const weight = transpose(matrix(inputs, outputs, Float32Array.from(right)));
    const bias = Float32Array.from(y, (mean, k) => {
      let shift = mean;
      for (let j = 0; j < inputs; j++) shift -= weight.data[k * inputs + j]! * x[j]!;
      return shift;
    });
    return { weight, bias };
  }
}

/** The answers to rows of inputs. */
export function predict(backend: Backend, x: Matrix, { weight, bias }: Regression): Matrix {
  return multiply(backend, x, weight, { transposed: true, bias });
}

/** Rows [from, to) of a matrix, as a view. */
export function rowsOf({ rows, columns, data }: Matrix, from: number, to: number): Matrix {
  const end = Math.min(rows, to);
  return matrix(end - from, columns, data.subarray(from * columns, end * columns));
}

function scaledRows({ rows, columns, data }: Matrix, factors: Float64Array): Matrix {
  const scaled = matrix(rows, columns);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let j = 0; j < columns; j++, i++) scaled.data[i] = data[i]! * factors[row]!;
  }
  return scaled;
}

function addTo(sum: Float64Array, terms: ArrayLike<number>): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += terms[i]!;
}

function columnSums({ rows, columns, data }: Matrix, weights?: Float64Array): Float64Array {
  const sums = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    const weight = weights ? weights[row]! : 1;
    for (let j = 0; j < columns; j++) sums[j]! += weight * data[row * columns + j]!;
  }
  return sums;
}

/**
 * Solves A X = B for a symmetric, positive definite A by Cholesky's factorisation.
 * @param a size x size; becomes the factor
 * @param b size x columns; becomes X
 */
async function solveInPlace(a: Float64Array, b: Float64Array, size: number, columns: number): Promise<void> {
  const row = (i: number) => a.subarray(i * size, (i + 1) * size);
  const given = (i: number) => b.subarray(i * columns, (i + 1) * columns);
  for (let i = 0; i < size; i++) {
    const own = row(i);
    for (let j = 0; j <= i; j++) {
      const other = row(j);
      let left = own[j]!;
      for (let k = 0; k < j; k++) left -= own[k]! * other[k]!;
      own[j] = i === j ? sqrt(Math.max(left, Number.MIN_VALUE)) : left / other[j]!;
    }
    const answer = given(i);
    for (let k = 0; k < i; k++) subtract(answer, own[k]!, given(k));
    scale(answer, 1 / own[i]!);
    if (i % TURN === 0) await setImmediate();
  }
  for (let i = size - 1; i >= 0; i--) {
    const answer = given(i);
    scale(answer, 1 / a[i * size + i]!);
    for (let k = 0; k < i; k++) subtract(given(k), a[i * size + k]!, answer);
    if (i % TURN === 0) await setImmediate();
  }
}

function subtract(from: Float64Array, factor: number, what: Float64Array): void {
  for (let c = 0; c < from.length; c++) from[c]! -= factor * what[c]!;
}

function scale(values: Float64Array, factor: number): void {
  for (let c = 0; c < values.length; c++) values[c]! *= factor;
}
