/** The two heads behind one block of a network that answers with a vector or a number: what it will answer, and how far off that will be. */
import type { Backend } from '../../backends/backend.js';
import { nearestBfloat16 } from '../../numeric/bfloat16.js';
import { mean, median } from '../../numeric/statistics.js';
import type { Layer } from '../../skip/head.js';
import { distanceOf } from '../../skip/losses.js';
import type { Limit } from '../../skip/promise.js';
import type { TensorData } from '../../tensor/tensor.js';
import type { VectorOf } from '../run/items.js';
import { principal } from './basis.js';
import { type Scale, scaleOf, standardise } from './head-training.js';
import { type Matrix, matrix, multiply } from './matrices.js';
import { NormalEquations, predict, type Regression, rowsOf } from './ridge.js';

export interface PointFitting {
  readonly seed: number;
  /** What is promised; heads learn what the losses by these metrics grow with. */
  readonly promises: readonly [Limit, ...Limit[]];
  /** All elements of the first output when left out. */
  readonly vectorOf?: VectorOf | undefined;
}

/** Penalties of the regression to choose from. */
const PENALTIES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
/** Fewest and most times that the items are weighed again; between them, for as long as the usual error falls below this share. */
const [SWEEPS, MAX_SWEEPS, FALLING] = [3, 8, 0.8];
/** That of the regression that predicts losses. */
const SCORE_PENALTY = 1e-2;
/** Directions with less than this share of the largest variance say nothing. */
const FLAT = 1e-6;
/** Losses below this share of their mean are not distinguished. */
const MIN_LOSS = 1e-3;

/** What was read of the items of one fold; an image counts once more for each altered copy. */
export interface Fold {
  readonly inputs: TensorData[];
  /** Of the full network: what heads predict. */
  readonly answers: Float32Array[];
  /** Elements of each output; where it has a vector for each token, more than an answer has. */
  readonly sizes: number[];
  /** By exit point. */
  readonly features: readonly Float32Array[][];
}

/** Rows below each other. */
export function stacked(rows: readonly Float32Array[]): Matrix {
  const columns = rows[0]!.length;
  const all = matrix(rows.length, columns);
  for (const [i, row] of rows.entries()) all.data.set(row, i * columns);
  return all;
}

/** Of each row. */
function squaredErrors({ rows, columns, data }: Matrix, truth: Matrix): Float64Array {
  const errors = new Float64Array(rows);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let j = 0; j < columns; j++, i++) errors[row]! += (data[i]! - truth.data[i]!) ** 2;
  }
  return errors;
}

/** Rows to learn from, and the sums over them. */
export interface Part {
  readonly x: Matrix;
  readonly y: Matrix;
  readonly sums: NormalEquations;
}

/**
 * Only items that are predicted well leave, so that the others mustn't spoil the prediction: rows weigh less the further off they are, by
 * Geman and McClure's function of their error in units of the median (iteratively reweighted least squares). Where blocks add nothing for
 * most items, these are predicted better with each time that they are weighed.
 */
export async function robust(backend: Backend, parts: readonly Part[], penalty: number): Promise<Regression> {
  let found = await NormalEquations.sum(parts.map(({ sums }) => sums)).solve(penalty);
  let before = Number.POSITIVE_INFINITY;
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    const { usual, sums } = weighed(backend, parts, found);
    if (sweep >= SWEEPS && usual > FALLING * before) break;
    before = usual;
    found = await sums.solve(penalty);
  }
  return found;
}

/** The rows, weighed by how well a regression predicts them, and its usual squared error. */
function weighed(
  backend: Backend,
  parts: readonly Part[],
  found: Regression,
): { usual: number; sums: NormalEquations } {
  const errors = new Float64Array(parts.reduce((rows, { x }) => rows + x.rows, 0));
  let from = 0;
  const own = parts.map(({ x, y }) => {
    errors.set(squaredErrors(predict(backend, x, found), y), from);
    from += x.rows;
    return errors.subarray(from - x.rows, from);
  });
  const usual = Math.max(median(errors), Number.MIN_VALUE);
  const sums = new NormalEquations(found.weight.columns, found.weight.rows);
  for (const [i, { x, y }] of parts.entries()) {
    const weights = own[i]!.map((error) => 1 / (1 + error / usual) ** 2);
    sums.add(backend, x, y, weights);
  }
  return { usual, sums };
}

/** The heads behind one block. */
export class PointFit {
  /** Standardised features of all folds, one after another. */
  readonly #x: Matrix;
  readonly #scale: Scale;
  /** By fold. */
  readonly #parts: readonly Part[];
  readonly #solved = new Map<string, Promise<Regression>>();
  #penalty: number | undefined;

  constructor(
    private readonly backend: Backend,
    private readonly folds: readonly Fold[],
    point: number,
    private readonly directions: number,
    private readonly fitting: PointFitting,
  ) {
    this.#x = stacked(folds.flatMap(({ features }) => features[point]!));
    this.#scale = scaleOf(this.#x);
    standardise(this.#x, this.#scale);
    let from = 0;
    this.#parts = folds.map(({ answers }) => {
      const [x, y] = [rowsOf(this.#x, from, from + answers.length), stacked(answers)];
      from += answers.length;
      const sums = new NormalEquations(x.columns, y.columns);
      sums.add(backend, x, y);
      return { x, y, sums };
    });
  }

  /** The head and its score, of these folds alone. */
  async head(folds: readonly number[]): Promise<{ layers: Layer[]; score: Layer[] }> {
    const losses: number[][] = [];
    for (const fold of folds) {
      const others = await this.#solve(folds.filter((other) => other !== fold));
      losses.push(this.#losses(fold, others));
    }
    const found = await this.#solve(folds);
    const x = folds.map((fold) => this.#parts[fold]!.x);
    return { layers: [raw(found, this.#scale)], score: await this.#score(x, losses.flat()) };
  }

  async #solve(folds: readonly number[]): Promise<Regression> {
    this.#penalty ??= await this.#bestPenalty();
    const key = folds.join();
    const known = this.#solved.get(key);
    if (known) return known;
    const parts = folds.map((fold) => this.#parts[fold]!);
    const solved = robust(this.backend, parts, this.#penalty);
    this.#solved.set(key, solved);
    return solved;
  }

  /** The one with which the first fold predicts a usual item of the second best: only such items leave. */
  async #bestPenalty(): Promise<number> {
    const { backend } = this;
    const [first, second = first!] = this.#parts;
    const { sums } = weighed(backend, [first!], await robust(backend, [first!], PENALTIES[2]!));
    let [best, min] = [PENALTIES[0]!, Number.POSITIVE_INFINITY];
    for (const penalty of PENALTIES) {
      const error = median(squaredErrors(predict(backend, second.x, await sums.solve(penalty)), second.y));
      if (error < min) [best, min] = [penalty, error];
    }
    return best;
  }

  /** Of the items of a fold, with a regression that has not seen them. */
  #losses(fold: number, regression: Regression): number[] {
    const { promises, vectorOf = ({ outputs }) => outputs[0]! } = this.fitting;
    const { inputs, answers, sizes } = this.folds[fold]!;
    const found = predict(this.backend, this.#parts[fold]!.x, regression);
    const read = (output: Float32Array, i: number) => {
      const outcome = {
        outputs: [repeated(output, sizes[i]!)],
        ran: new Uint8Array(0),
        scores: new Float32Array(0),
      };
      return vectorOf(outcome, inputs[i]!);
    };
    const distance = distanceOf(promises);
    return answers.map((answer, i) => distance(read(rowsOf(found, i, i + 1).data, i), read(answer, i)));
  }

  /** The direction in which the targets grow, as long as the rows spread along it: what decides may hardly vary otherwise. */
  async #towards(rows: Matrix, targets: Matrix): Promise<Matrix> {
    const sums = new NormalEquations(rows.columns, 1);
    sums.add(this.backend, rows, targets);
    const { weight } = await sums.solve(SCORE_PENALTY);
    const along = [...multiply(this.backend, rows, weight, { transposed: true }).data];
    const middle = mean(along);
    const spread = Math.sqrt(mean(along.map((x) => (x - middle) ** 2)));
    const length = Math.sqrt(weight.data.reduce((sum, x) => sum + x * x, 0));
    const factor = length > 0 ? spread / length : 0;
    return matrix(
      rows.columns,
      1,
      weight.data.map((x) => factor * x),
    );
  }

  /** Layers that predict from the features of some rows how small their losses are: their standardised logarithm, negative. */
  async #score(x: readonly Matrix[], losses: readonly number[]): Promise<Layer[]> {
    const { backend } = this;
    const rows = matrix(losses.length, x[0]!.columns, joined(x.map(({ data }) => data)));
    const targets = scoreTargets(losses);
    const own = await this.#towards(rows, targets);
    const { directions, mean: centre } = principal(backend, rows, this.directions - 1, this.fitting.seed);
    const hidden = hiddenOf(beside(own, directions), centre);
    const seen = predict(backend, rows, hidden);
    for (const [i, value] of seen.data.entries()) seen.data[i] = Math.max(0, value);
    const sums = new NormalEquations(seen.columns, 1);
    sums.add(backend, seen, targets);
    const { weight, bias } = await sums.solve(SCORE_PENALTY);
    return [raw(hidden, this.#scale), { weight: nearestBfloat16(weight.data), bias }];
  }
}

/** Columns next to each other. */
function beside(a: Matrix, b: Matrix): Matrix {
  const columns = a.columns + b.columns;
  const all = matrix(a.rows, columns);
  for (let row = 0; row < a.rows; row++) {
    all.data.set(a.data.subarray(row * a.columns, (row + 1) * a.columns), row * columns);
    all.data.set(b.data.subarray(row * b.columns, (row + 1) * b.columns), row * columns + a.columns);
  }
  return all;
}

/** What a score learns of losses: their standardised logarithm, negative. */
export function scoreTargets(losses: readonly number[]): Matrix {
  const min = Math.max(MIN_LOSS * mean(losses), Number.MIN_VALUE);
  const logs = losses.map((loss) => Math.log(loss + min));
  const middle = mean(logs);
  const spread = Math.sqrt(mean(logs.map((log) => (log - middle) ** 2))) || 1;
  return matrix(
    logs.length,
    1,
    Float32Array.from(logs, (log) => (middle - log) / spread),
  );
}

/** A layer for features that aren't standardised. */
export function raw(
  { weight: { rows, columns, data }, bias }: Regression,
  { mean: centre, inverse }: Scale,
): Layer {
  const weight = nearestBfloat16(data.map((own, i) => own * inverse[i % columns]!));
  const shifted = bias.slice();
  for (let k = 0; k < rows; k++) {
    for (let j = 0; j < columns; j++) shifted[k]! -= weight[k * columns + j]! * centre[j]!;
  }
  return { weight, bias: shifted };
}

export function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** One vector again and again, as an exit answers for all tokens. */
function repeated(vector: Float32Array, size: number): Float32Array {
  if (vector.length === size) return vector;
  const all = new Float32Array(size);
  for (let at = 0; at < size; at += vector.length) all.set(vector, at);
  return all;
}

/** Both signs of each direction, in units of the spread along it: with a ReLU behind it, distances from the mean can be told. */
export function hiddenOf(directions: Matrix, centre: Float32Array): Regression {
  const { rows: width, columns: rank, data } = directions;
  const weight = matrix(2 * rank, width);
  const bias = new Float32Array(2 * rank);
  // Each direction is as long as the items spread along it.
  const squares = new Float64Array(rank);
  for (const [i, value] of data.entries()) squares[i % rank]! += value ** 2;
  const min = FLAT * Math.max(...squares);
  for (let k = 0; k < rank; k++) {
    const scale = squares[k]! > min ? 1 / squares[k]! : 0;
    for (let j = 0; j < width; j++) {
      const own = scale * data[j * rank + k]!;
      weight.data[k * width + j] = own;
      weight.data[(rank + k) * width + j] = -own;
      bias[k]! -= own * centre[j]!;
      bias[rank + k]! += own * centre[j]!;
    }
  }
  return { weight, bias };
}
