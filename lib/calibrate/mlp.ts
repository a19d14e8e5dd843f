/**
 * A small fully connected network, trained by distillation: Adam on the cross-entropy with the teacher's
 * probabilities. Deterministic for a seed.
 */
import type { Head, Layer } from '../skip/head.js';
import { generator, shuffle } from './random.js';

/** Samples as one array, row after row. */
export interface Samples {
  readonly rows: number;
  readonly width: number;
  readonly data: Float32Array;
}

export interface Training {
  /** Width of the hidden layer. */
  readonly hidden: number;
  readonly epochs: number;
  /** Of the first weights and of the order of the samples. */
  readonly seed: number;
}

// Looked up once: globals are slow to reach inside a test runner.
const { ceil, cos, exp, floor, max, sqrt, PI } = Math;

const BATCH = 64;
const RATE = 3e-3;
/** Decoupled weight decay (Loshchilov and Hutter 2019), per step and unit of the rate. */
const DECAY = 1e-2;
/** Rows and columns are taken four at a time, which keeps sums in registers. */
const UNROLL = 4;

/**
 * Two layers with a ReLU between, on standardised features; the standardisation is folded into the first.
 * @param targets rows x classes: probabilities of the teacher
 */
export function fitMlp(features: Samples, targets: Samples, training: Training): Layer[] {
  const scale = standardisation(features);
  const net = new Net(features.width, training.hidden, targets.width, training.seed);
  const random = generator(training.seed + 1);
  const order = Array.from({ length: features.rows }, (_, i) => i);
  const batches = ceil(features.rows / BATCH);
  const steps = batches * training.epochs;
  for (let step = 0; step < steps; step++) {
    const at = step % batches;
    if (at === 0) shuffle(order, random);
    for (let i = 0; i < BATCH; i++) {
      // The last batch of an epoch takes its missing samples from the first.
      net.load(i, features, targets, order[(at * BATCH + i) % order.length]!, scale);
    }
    net.train(step + 1, (RATE * (1 + cos((PI * step) / steps))) / 2);
  }
  return net.layers(scale);
}

interface Standardisation {
  readonly mean: Float64Array;
  /** 1 / standard deviation; 0 for a feature that never varies, which tells nothing. */
  readonly inverse: Float64Array;
}

function standardisation({ rows, width, data }: Samples): Standardisation {
  const mean = new Float64Array(width);
  const inverse = new Float64Array(width);
  for (let i = 0; i < rows * width; i++) mean[i % width]! += data[i]! / rows;
  for (let i = 0; i < rows * width; i++) inverse[i % width]! += (data[i]! - mean[i % width]!) ** 2 / rows;
  return { mean, inverse: inverse.map((variance) => (variance > 1e-12 ? 1 / sqrt(variance) : 0)) };
}

function padded(width: number): number {
  return ceil(width / UNROLL) * UNROLL;
}

/** A matrix of weights, inputs (padded) x outputs, and Adam's moments of it (Kingma and Ba 2015). */
class Parameters {
  readonly values: Float64Array;
  readonly gradient: Float64Array;
  readonly #first: Float64Array;
  readonly #second: Float64Array;

  constructor(count: number, limit: number, random: () => number) {
    this.values = Float64Array.from({ length: count }, () => limit * (2 * random() - 1));
    this.gradient = new Float64Array(count);
    this.#first = new Float64Array(count);
    this.#second = new Float64Array(count);
  }

  /** @param time counts from 1 */
  step(time: number, rate: number): void {
    const { values, gradient } = this;
    const [first, second] = [this.#first, this.#second];
    const scale = (rate * sqrt(1 - 0.999 ** time)) / (1 - 0.9 ** time);
    const keep = 1 - rate * DECAY;
    for (let i = 0; i < values.length; i++) {
      const slope = gradient[i]!;
      first[i] = 0.9 * first[i]! + 0.1 * slope;
      second[i] = 0.999 * second[i]! + 0.001 * slope * slope;
      values[i] = keep * values[i]! - (scale * first[i]!) / (sqrt(second[i]!) + 1e-8);
    }
    gradient.fill(0);
  }
}

/** Weights and the activations of one batch. */
class Net {
  readonly #inputs: number;
  readonly #hiddenInputs: number;
  readonly #w1: Parameters;
  readonly #b1: Parameters;
  readonly #w2: Parameters;
  readonly #b2: Parameters;
  readonly #x: Float64Array;
  readonly #target: Float64Array;
  /** Hidden activations, batch x hidden (padded); then the loss's slope in the logits, and in the hidden sums. */
  readonly #h: Float64Array;
  readonly #z: Float64Array;
  readonly #slope: Float64Array;

  constructor(
    private readonly width: number,
    private readonly hidden: number,
    private readonly classes: number,
    seed: number,
  ) {
    const random = generator(seed);
    this.#inputs = padded(width);
    this.#hiddenInputs = padded(hidden);
    // Uniform in +-1/sqrt(inputs).
    this.#w1 = new Parameters(this.#inputs * hidden, 1 / sqrt(width), random);
    this.#b1 = new Parameters(hidden, 1 / sqrt(width), random);
    this.#w2 = new Parameters(this.#hiddenInputs * classes, 1 / sqrt(hidden), random);
    this.#b2 = new Parameters(classes, 1 / sqrt(hidden), random);
    this.#x = new Float64Array(BATCH * this.#inputs);
    this.#target = new Float64Array(BATCH * classes);
    this.#h = new Float64Array(BATCH * this.#hiddenInputs);
    this.#z = new Float64Array(BATCH * classes);
    this.#slope = new Float64Array(BATCH * hidden);
  }

  /** Puts sample `from` into row `row` of the batch. */
  load(row: number, features: Samples, targets: Samples, from: number, scale: Standardisation): void {
    const { mean, inverse } = scale;
    for (let j = 0; j < this.width; j++) {
      this.#x[row * this.#inputs + j] = (features.data[from * this.width + j]! - mean[j]!) * inverse[j]!;
    }
    for (let k = 0; k < this.classes; k++) {
      this.#target[row * this.classes + k] = targets.data[from * this.classes + k]!;
    }
  }

  train(time: number, rate: number): void {
    this.#forward();
    this.#backward();
    for (const parameters of [this.#w1, this.#b1, this.#w2, this.#b2]) parameters.step(time, rate);
  }

  #forward(): void {
    const { hidden, classes } = this;
    const [h, z] = [this.#h, this.#z];
    const sums = this.#slope;
    for (let i = 0; i < BATCH; i++) sums.set(this.#b1.values, i * hidden);
    multiply(this.#x, this.#w1.values, sums, this.#inputs, hidden);
    for (let i = 0; i < BATCH; i++) {
      for (let k = 0; k < hidden; k++) {
        h[i * this.#hiddenInputs + k] = max(0, sums[i * hidden + k]!);
      }
      z.set(this.#b2.values, i * classes);
    }
    multiply(h, this.#w2.values, z, this.#hiddenInputs, classes);
  }

  #backward(): void {
    const { hidden, classes } = this;
    const [h, z, slope] = [this.#h, this.#z, this.#slope];
    for (let i = 0; i < BATCH; i++) this.#logitSlopes(i * classes);
    accumulate(h, z, this.#w2.gradient, this.#hiddenInputs, classes);
    for (let i = 0; i < BATCH; i++) {
      for (let k = 0; k < classes; k++) this.#b2.gradient[k]! += z[i * classes + k]!;
      for (let j = 0; j < hidden; j++) {
        let sum = 0;
        if (h[i * this.#hiddenInputs + j]! > 0) {
          for (let k = 0; k < classes; k++) sum += this.#w2.values[j * classes + k]! * z[i * classes + k]!;
        }
        slope[i * hidden + j] = sum;
        this.#b1.gradient[j]! += sum;
      }
    }
    accumulate(this.#x, slope, this.#w1.gradient, this.#inputs, hidden);
  }

  /** Replaces the logits from `at` on by (softmax - target) / batch. */
  #logitSlopes(at: number): void {
    const z = this.#z.subarray(at, at + this.classes);
    let top = z[0]!;
    for (const value of z) top = max(top, value);
    let total = 0;
    for (let k = 0; k < z.length; k++) {
      z[k] = exp(z[k]! - top);
      total += z[k]!;
    }
    for (let k = 0; k < z.length; k++) z[k] = (z[k]! / total - this.#target[at + k]!) / BATCH;
  }

  layers({ mean, inverse }: Standardisation): Layer[] {
    const { width, hidden, classes } = this;
    const weight = new Float32Array(hidden * width);
    const bias = new Float32Array(hidden);
    for (let k = 0; k < hidden; k++) {
      let shift = this.#b1.values[k]!;
      for (let j = 0; j < width; j++) {
        const w = this.#w1.values[j * hidden + k]! * inverse[j]!;
        weight[k * width + j] = w;
        shift -= w * mean[j]!;
      }
      bias[k] = shift;
    }
    const out = new Float32Array(classes * hidden);
    for (let i = 0; i < out.length; i++) {
      out[i] = this.#w2.values[(i % hidden) * classes + floor(i / hidden)]!;
    }
    return [
      { weight, bias },
      { weight: out, bias: Float32Array.from(this.#b2.values) },
    ];
  }
}

/** y (BATCH x outputs) += x (BATCH x inputs) * w (inputs x outputs); `inputs` is a multiple of UNROLL. */
function multiply(x: Float64Array, w: Float64Array, y: Float64Array, inputs: number, outputs: number): void {
  for (let i = 0; i < BATCH; i++) {
    const to = i * outputs;
    for (let j = 0; j < inputs; j += UNROLL) {
      const from = i * inputs + j;
      const [a, b, c, d] = [x[from]!, x[from + 1]!, x[from + 2]!, x[from + 3]!];
      const at = j * outputs;
      for (let k = 0; k < outputs; k++) {
        y[to + k]! +=
          a * w[at + k]! +
          b * w[at + outputs + k]! +
          c * w[at + 2 * outputs + k]! +
          d * w[at + 3 * outputs + k]!;
      }
    }
  }
}

/** g (inputs x outputs) += transposed x (BATCH x inputs) * e (BATCH x outputs). */
function accumulate(
  x: Float64Array,
  e: Float64Array,
  g: Float64Array,
  inputs: number,
  outputs: number,
): void {
  for (let i = 0; i < BATCH; i += UNROLL) {
    const at = i * outputs;
    for (let j = 0; j < inputs; j++) {
      const from = i * inputs + j;
      const [a, b, c, d] = [x[from]!, x[from + inputs]!, x[from + 2 * inputs]!, x[from + 3 * inputs]!];
      const to = j * outputs;
      for (let k = 0; k < outputs; k++) {
        g[to + k]! +=
          a * e[at + k]! +
          b * e[at + outputs + k]! +
          c * e[at + 2 * outputs + k]! +
          d * e[at + 3 * outputs + k]!;
      }
    }
  }
}

/** What a head says of features, in double precision. */
export function applyHead({ layers }: Head, features: Float32Array): Float32Array {
  return layers.reduce((x, { weight, bias }, index) => {
    const last = index === layers.length - 1;
    return bias.map((shift, k) => {
      let sum = shift;
      for (let j = 0; j < x.length; j++) sum += weight[k * x.length + j]! * x[j]!;
      return last ? sum : max(0, sum);
    });
  }, features);
}
