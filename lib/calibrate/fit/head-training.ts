/**
 * Trains the heads of a chain of exits by distillation (Hinton, Vinyals and Dean 2015): Adam on the cross-entropy
 * with the network's own probabilities. Each head has one hidden layer, and its inputs are the features behind its
 * block and the hidden layer of the previous head (Wołczyk et al. 2021, "Zero Time Waste"). Deterministic for a seed.
 */
import type { Backend } from '../../backends/backend.js';
import { nearestBytes } from '../../numeric/bytes.js';
import type { Layer } from '../../skip/head.js';
import type { Basis } from './basis.js';
import { type CompiledSteps, type Matrix, matrix, multiply, RELU, Steps } from './matrices.js';

// Looked up once: globals are slow to reach inside a test runner.
const { abs, max, round, sqrt } = Math;

/** Decoupled weight decay (Loshchilov and Hutter 2019), per step and unit of the rate. */
const DECAY = 1e-2;

/** Largest byte, and how many standard deviations it represents. */
const [BYTE, REACH] = [127, 6];
/** What is left of the largest number after a step. */
const FADING = 0.999;
/** Of a hidden unit without weights. */
const MIN_FACTOR = 2 ** -100;

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

/** Makes the features' means 0 and their variances 1, in place. */
export function standardise({ rows, columns: width, data }: Matrix, { mean, inverse }: Scale): void {
  for (let row = 0; row < rows; row++) {
    const from = row * width;
    for (let j = 0; j < width; j++) data[from + j] = (data[from + j]! - mean[j]!) * inverse[j]!;
  }
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
  #slopes: Slopes | undefined;
  /** The largest numbers that the previous head's hidden layer gave lately. */
  readonly #most: Float32Array;

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
    this.#most = new Float32Array(more);
  }

  /**
   * One step on a batch.
   * @param features rows x width, standardised
   * @param batch the rows of it
   * @param targets batch x rank: the network's probabilities times the basis
   * @param before the previous head's hidden layer, batch x more
   * @returns the hidden layer, batch x hidden, before the step; the next step overwrites it
   */
  train(
    features: Matrix,
    batch: Uint32Array,
    targets: Matrix,
    before: Matrix | undefined,
    time: number,
    rate: number,
  ): Matrix {
    const [w1, b1, w2, b2] = [this.#w1, this.#b1, this.#w2, this.#b2];
    if (this.#slopes?.batch !== batch.length) {
      this.release();
      this.#slopes = new Slopes(this.backend, batch.length, this.width + this.more, this.hidden, this.basis);
    }
    const slopes = this.#slopes;
    const { seen, hidden } = slopes;
    const { width, more } = this;
    for (const [i, row] of batch.entries()) {
      const to = i * (width + more);
      seen.set(features.data.subarray(row * width, (row + 1) * width), to);
      if (before) seen.set(before.data.subarray(i * more, (i + 1) * more), to + width);
    }
    if (before) this.#note(before);
    slopes.find(targets, [w1.values, b1.values, w2.values, b2.values]);
    for (const [i, parameters] of [w1, b1, w2, b2].entries()) parameters.step(slopes.of[i]!, time, rate);
    return hidden;
  }

  #note({ data }: Matrix): void {
    const most = this.#most;
    for (let j = 0; j < most.length; j++) most[j]! *= FADING;
    for (let i = 0; i < data.length; i++) most[i % most.length] = max(most[i % most.length]!, data[i]!);
  }

  release(): void {
    this.#slopes?.release();
  }

  /**
   * The head's layers for raw features: standardisation and basis are merged into them. The first computes with bytes. Weights of the second
   * are rounded to numbers that the engine reads from a byte each.
   */
  layers({ mean, inverse }: Scale): Layer[] {
    const { width, more, hidden, basis } = this;
    const inputs = width + more;
    const [scale, shift] = [new Float32Array(inputs), new Float32Array(inputs)];
    // What a weight is multiplied by where bytes stand for inputs, and the input whose byte is 0.
    const [steps, middles] = [new Float64Array(inputs), new Float64Array(inputs)];
    for (let j = 0; j < width; j++) {
      scale[j] = inverse[j]! * (BYTE / REACH);
      shift[j] = -mean[j]! * scale[j]!;
      steps[j] = inverse[j]! > 0 ? REACH / BYTE : 0;
    }
    for (const [i, top] of this.#most.entries()) {
      const j = width + i;
      scale[j] = top > 0 ? (2 * BYTE) / top : 0;
      shift[j] = top > 0 ? -BYTE : 0;
      steps[j] = top / (2 * BYTE);
      middles[j] = top / 2;
    }
    const weight = new Float32Array(hidden * inputs);
    const factor = new Float32Array(hidden);
    const bias = this.#b1.values.slice();
    for (let k = 0; k < hidden; k++) {
      const from = k * inputs;
      let [largest, moved] = [0, 0];
      for (let j = 0; j < inputs; j++) {
        const own = this.#w1.values[from + j]!;
        moved += own * middles[j]!;
        largest = max(largest, abs(own * steps[j]!));
      }
      bias[k]! += moved;
      factor[k] = max(largest / BYTE, MIN_FACTOR);
      // Adding 0 leaves no -0, which a byte doesn't have.
      for (let j = 0; j < inputs; j++)
        weight[from + j] = round((this.#w1.values[from + j]! * steps[j]!) / factor[k]!) + 0;
    }
    const w2 = matrix(basis.directions.columns, hidden, this.#w2.values);
    const b2 = matrix(1, basis.directions.columns, this.#b2.values);
    return [
      { weight, bias, rounding: { scale, shift, factor } },
      {
        weight: nearestBytes(multiply(this.backend, basis.directions, w2).data, hidden),
        bias: multiply(this.backend, b2, basis.directions, { transposed: true, bias: basis.mean }).data,
      },
    ];
  }
}

/** The gradient of the mean cross-entropy for batches of one size. */
class Slopes {
  /** batch x inputs, to be filled in. */
  readonly seen: Float32Array;
  readonly hidden: Matrix;
  /** Of w1, b1, w2 and b2. */
  readonly of: readonly Float32Array[];
  readonly #compiled: CompiledSteps;

  constructor(
    backend: Backend,
    readonly batch: number,
    inputs: number,
    hidden: number,
    basis: Basis,
  ) {
    const { rows: classes, columns: rank, data } = basis.directions;
    this.seen = new Float32Array(batch * inputs);
    this.hidden = matrix(batch, hidden);
    this.of = [hidden * inputs, hidden, rank * hidden, rank].map((size) => new Float32Array(size));
    const steps = new Steps();
    const [seen, targets] = [steps.given([batch, inputs]), steps.given([batch, rank])];
    const [w1, b1] = [steps.given([hidden, inputs]), steps.given([hidden])];
    const [w2, b2] = [steps.given([rank, hidden]), steps.given([rank])];
    const directions = steps.given([classes, rank], data);
    const mean = steps.given([classes], basis.mean);
    const found = steps.binary('add', steps.product(seen, steps.transpose(w1)), b1, RELU);
    const scores = steps.binary('add', steps.product(found, steps.transpose(w2)), b2);
    const logits = steps.binary('add', steps.product(scores, steps.transpose(directions)), mean);
    const attrs = { axis: 1, log: false };
    const likely = steps.add({ op: 'softmax', inputs: [logits], attrs }, [batch, classes]);
    // (softmax - target) / batch, times the directions; the target is given times the directions.
    const off = steps.binary('sub', steps.product(likely, directions), targets);
    const ofScores = steps.binary('mul', off, steps.given([1], Float32Array.of(1 / batch)));
    const zero = steps.given([1], Float32Array.of(0));
    const active = steps.add(
      { op: 'compare', inputs: [found, zero], attrs: { kind: 'gt' } },
      [batch, hidden],
      'bool',
    );
    const through = { op: 'where', inputs: [active, steps.product(ofScores, w2), zero], attrs: {} } as const;
    const ofFound = steps.add(through, [batch, hidden]);
    const gradients = [
      steps.product(steps.transpose(ofFound), seen),
      steps.columnSums(ofFound),
      steps.product(steps.transpose(ofScores), found),
      steps.columnSums(ofScores),
    ];
    this.#compiled = steps.compile(backend, [seen, targets, w1, b1, w2, b2], [found, ...gradients]);
  }

  /** @param parameters w1, b1, w2 and b2 */
  find(targets: Matrix, parameters: readonly Float32Array[]): void {
    this.#compiled.run([this.seen, targets.data, ...parameters], [this.hidden.data, ...this.of]);
  }

  release(): void {
    this.#compiled.release();
  }
}
