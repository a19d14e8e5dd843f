/**
 * Trains the heads of a chain of exits by distillation (Hinton, Vinyals and Dean 2015): Adam on the cross-entropy
 * with the network's own probabilities. Each head has one hidden layer, and its inputs are the features behind its
 * block and the hidden layer of the previous head (Wołczyk et al. 2021, "Zero Time Waste"). Deterministic for a seed.
 */
import type { Backend } from '../backends/backend.js';
import { nearestBfloat16 } from '../numeric/bfloat16.js';
import type { Layer } from '../skip/head.js';
import type { Basis } from './low-rank.js';
import { type Matrix, matrix, multiply, transpose } from './products.js';

// Looked up once: globals are slow to reach inside a test runner.
const { exp, max, sqrt } = Math;

/** Decoupled weight decay (Loshchilov and Hutter 2019), per step and unit of the rate. */
const DECAY = 1e-2;

/** For every feature, the shift and factor that make its mean 0 and its variance 1. */
export interface Scale {
  readonly mean: Float32Array;
  /** 1 / standard deviation; 0 for a constant feature, which carries no information. */
  readonly inverse: Float32Array;
}

/** @param features rows x width */
export function scaleOf({ rows, columns: width, data }: Matrix): Scale {
  const sum = new Float64Array(width);
  const squares = new Float64Array(width);
  for (let i = 0; i < rows * width; i++) sum[i % width]! += data[i]!;
  const mean = Float32Array.from(sum, (total) => total / rows);
  for (let i = 0; i < rows * width; i++) squares[i % width]! += (data[i]! - mean[i % width]!) ** 2;
  const inverse = Float32Array.from(squares, (total) => (total > 1e-12 * rows ? sqrt(rows / total) : 0));
  return { mean, inverse };
}

/** Parameters with Adam's moments of their gradient (Kingma and Ba 2015). */
class Parameters {
  readonly values: Float32Array;
  readonly #first: Float32Array;
  readonly #second: Float32Array;

  constructor(count: number, limit: number, random: () => number) {
    this.values = Float32Array.from({ length: count }, () => limit * (2 * random() - 1));
    this.#first = new Float32Array(count);
    this.#second = new Float32Array(count);
  }

  /** @param time counts from 1 */
  step(gradient: Float32Array, time: number, rate: number): void {
    const { values } = this;
    const [first, second] = [this.#first, this.#second];
    const scale = (rate * sqrt(1 - 0.999 ** time)) / (1 - 0.9 ** time);
    const keep = 1 - rate * DECAY;
    for (let i = 0; i < values.length; i++) {
      const slope = gradient[i]!;
      const m = 0.9 * first[i]! + 0.1 * slope;
      const v = 0.999 * second[i]! + 0.001 * slope * slope;
      first[i] = m;
      second[i] = v;
      values[i] = keep * values[i]! - (scale * m) / (sqrt(v) + 1e-8);
    }
  }
}

/** One head in training. */
export class HeadInTraining {
  readonly #w1: Parameters;
  readonly #b1: Parameters;
  readonly #w2: Parameters;
  readonly #b2: Parameters;

  /**
   * @param width number of features
   * @param more inputs from the previous head
   */
  constructor(
    private readonly backend: Backend,
    private readonly width: number,
    private readonly more: number,
    private readonly hidden: number,
    private readonly basis: Basis,
    random: () => number,
  ) {
    const [inputs, rank] = [width + more, basis.directions.columns];
    this.#w1 = new Parameters(hidden * inputs, 1 / sqrt(inputs), random);
    this.#b1 = new Parameters(hidden, 1 / sqrt(inputs), random);
    this.#w2 = new Parameters(rank * hidden, 1 / sqrt(hidden), random);
    this.#b2 = new Parameters(rank, 1 / sqrt(hidden), random);
  }

  /**
   * One step on a batch.
   * @param seen rows x (width + more), features standardised
   * @param targets rows x classes: probabilities
   * @returns the hidden layer, rows x hidden, before the step
   */
  train(seen: Matrix, targets: Matrix, time: number, rate: number): Matrix {
    const { backend, basis } = this;
    const inputs = this.width + this.more;
    const rank = basis.directions.columns;
    const w1 = matrix(this.hidden, inputs, this.#w1.values);
    const w2 = matrix(rank, this.hidden, this.#w2.values);
    const hidden = multiply(backend, seen, w1, { transposed: true, bias: this.#b1.values, relu: true });
    const place = multiply(backend, hidden, w2, { transposed: true, bias: this.#b2.values });
    const slopes = multiply(backend, place, basis.directions, { transposed: true, bias: basis.mean });
    toSlopes(slopes, targets);
    const ofPlace = multiply(backend, slopes, basis.directions);
    const ofHidden = multiply(backend, ofPlace, w2);
    for (let i = 0; i < ofHidden.data.length; i++) if (hidden.data[i]! <= 0) ofHidden.data[i] = 0;
    const gradient = {
      w2: multiply(backend, transpose(ofPlace), hidden),
      w1: multiply(backend, transpose(ofHidden), seen),
    };
    this.#w1.step(gradient.w1.data, time, rate);
    this.#b1.step(columnSums(ofHidden), time, rate);
    this.#w2.step(gradient.w2.data, time, rate);
    this.#b2.step(columnSums(ofPlace), time, rate);
    return hidden;
  }

  /**
   * The head's layers for raw features: standardisation and basis are merged into them. Weights are rounded to
   * bfloat16, which halves the policy's file.
   */
  layers({ mean, inverse }: Scale): Layer[] {
    const { width, more, hidden, basis } = this;
    const inputs = width + more;
    const scaled = this.#w1.values.map((own, i) => {
      const j = i % inputs;
      return j < width ? own * inverse[j]! : own;
    });
    const weight = nearestBfloat16(scaled);
    const bias = this.#b1.values.map((own, k) => {
      let shift = own;
      for (let j = 0; j < width; j++) shift -= weight[k * inputs + j]! * mean[j]!;
      return shift;
    });
    const w2 = matrix(basis.directions.columns, hidden, this.#w2.values);
    const b2 = matrix(1, basis.directions.columns, this.#b2.values);
    return [
      { weight, bias },
      {
        weight: nearestBfloat16(multiply(this.backend, basis.directions, w2).data),
        bias: multiply(this.backend, b2, basis.directions, { transposed: true, bias: basis.mean }).data,
      },
    ];
  }
}

/** Turns logits into the gradient of the mean cross-entropy: (softmax - target) / rows. */
function toSlopes({ rows, columns, data }: Matrix, targets: Matrix): void {
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    let top = data[from]!;
    for (let k = 1; k < columns; k++) top = max(top, data[from + k]!);
    let total = 0;
    for (let k = 0; k < columns; k++) {
      const e = exp(data[from + k]! - top);
      data[from + k] = e;
      total += e;
    }
    for (let k = 0; k < columns; k++) {
      data[from + k] = (data[from + k]! / total - targets.data[from + k]!) / rows;
    }
  }
}

function columnSums({ rows, columns, data }: Matrix): Float32Array {
  const sums = new Float32Array(columns);
  for (let i = 0; i < rows * columns; i++) sums[i % columns]! += data[i]!;
  return sums;
}
