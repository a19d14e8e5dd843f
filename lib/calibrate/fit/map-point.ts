/** The heads of a map behind one block, for fitting: places of the map to learn from, and what is learnt of them. */
import type { Backend } from '../../backends/backend.js';
import type { Program } from '../../model/program/program.js';
import { sizeOf } from '../../numeric/shapes.js';
import type { Head, Layer } from '../../skip/head.js';
import { ratioOf, surenessWidth, type Tail } from '../../skip/map-head.js';
import { isOfPixels } from '../../skip/promise.js';
import { principal } from './basis.js';
import { type Scale, scaleOf, standardise } from './head-training.js';
import { type Matrix, matrix } from './matrices.js';
import { NormalEquations } from './ridge.js';
import { hiddenOf, joined, type Part, raw, robust, scoreTargets, stacked } from './vector-fit.js';
import type { VectorFitting } from './vector-heads.js';

/** Most directions in which the score sees a place, and its largest share of the network's multiply-adds. */
const [DIRECTIONS, MAX_SHARE] = [12, 0.01];
/** Penalties of the regressions. */
const [PENALTY, SCORE_PENALTY] = [1e-3, 1e-2];

/** What an item shows of a head that has not seen it: what the score's last layer reads, and the loss. */
export interface Seen {
  readonly hidden: Float32Array;
  readonly loss: number;
}

/** The heads behind one block. */
export class MapPoint {
  readonly #channels: number;
  readonly #sides: readonly [number, number];
  readonly #ratio: number;
  /** Channels of the map that is predicted. */
  readonly #predicted: number;
  readonly #features: Head['features'];
  readonly #directions: number;
  /** Rows of places, by fold. */
  readonly #read = new Map<number, { x: Matrix[]; y: Matrix[] }>();
  readonly #parts = new Map<number, Part>();
  readonly #solved = new Map<string, Promise<Layer>>();
  #scale: Scale | undefined;
  #hidden: Layer | undefined;

  constructor(
    private readonly backend: Backend,
    { blocks, values, cost }: Program,
    readonly after: string,
    tail: Tail,
    private readonly fitting: VectorFitting,
  ) {
    const { shape } = values[blocks.find(({ name }) => name === after)!.output]!;
    const target = values[tail.map]!.shape;
    this.#channels = shape[1]!;
    this.#sides = [shape[2]!, shape[3]!];
    this.#ratio = ratioOf(shape, target)!;
    this.#predicted = target[1]!;
    this.#features = isOfPixels(fitting.promises[0].metric) ? 'classes' : 'places';
    const affordable = Math.floor((MAX_SHARE * cost.multiplyAdds) / (2 * sizeOf(shape)));
    this.#directions = Math.max(1, Math.min(DIRECTIONS, affordable));
  }

  /** Numbers of a place that are kept. */
  get columns(): number {
    return this.#channels + this.#predicted * this.#ratio ** 2;
  }

  /**
   * Reads some places of some items.
   * @param maps the block's, and what the network's last layers get
   * @param folds of the items
   */
  add(
    maps: readonly { x: Float32Array; y: Float32Array }[],
    folds: readonly number[],
    places: number,
    random: () => number,
  ): void {
    const taken = maps.map(() =>
      Array.from({ length: places }, () => Math.floor(random() * sizeOf(this.#sides))),
    );
    const x = maps.map((map, i) => this.#rows(map.x, taken[i]!, this.#channels, 1));
    const y = maps.map((map, i) => this.#rows(map.y, taken[i]!, this.#predicted, this.#ratio));
    if (!this.#scale) {
      const seen = below(x);
      this.#scale = scaleOf(seen);
      standardise(seen, this.#scale);
      // Distances from the mean along directions.
      const { directions, mean } = principal(this.backend, seen, this.#directions, this.fitting.seed);
      this.#hidden = raw(hiddenOf(directions, mean), this.#scale);
    }
    for (const [i, fold] of folds.entries()) {
      const read = this.#read.get(fold) ?? { x: [], y: [] };
      this.#read.set(fold, read);
      read.x.push(x[i]!);
      read.y.push(y[i]!);
    }
  }

  /** No more places follow. */
  close(): void {
    for (const [fold, read] of this.#read) {
      const [x, y] = [below(read.x), below(read.y)];
      standardise(x, this.#scale!);
      const sums = new NormalEquations(x.columns, y.columns);
      sums.add(this.backend, x, y);
      this.#parts.set(fold, { x, y, sums });
    }
    this.#read.clear();
  }

  /** A head of these folds whose score says nothing yet. */
  async plainHead(folds: readonly number[]): Promise<Head> {
    const width = this.#hidden!.bias.length + surenessWidth(this.#features, this.#predicted);
    const nothing = { weight: new Float32Array(width), bias: new Float32Array(1) };
    return { features: this.#features, layers: [await this.#layer(folds)], score: [this.#hidden!, nothing] };
  }

  /** @param seen of these folds' items */
  async head(folds: readonly number[], seen: readonly Seen[]): Promise<Head> {
    const x = stacked(seen.map(({ hidden }) => hidden));
    const scale = scaleOf(x);
    standardise(x, scale);
    const sums = new NormalEquations(x.columns, 1);
    sums.add(this.backend, x, scoreTargets(seen.map(({ loss }) => loss)));
    const last = raw(await sums.solve(SCORE_PENALTY), scale);
    return { features: this.#features, layers: [await this.#layer(folds)], score: [this.#hidden!, last] };
  }

  #layer(folds: readonly number[]): Promise<Layer> {
    const key = folds.join();
    const solved =
      this.#solved.get(key) ??
      robust(
        this.backend,
        folds.map((fold) => this.#parts.get(fold)!),
        PENALTY,
      ).then((found) => raw(found, this.#scale!));
    this.#solved.set(key, solved);
    return solved;
  }

  /** A row for each place that was taken: channel by channel, and of each the `ratio` x `ratio` neighbours. */
  #rows(map: Float32Array, places: readonly number[], channels: number, ratio: number): Matrix {
    const [height, width] = this.#sides;
    const own = channels * ratio ** 2;
    const rows = matrix(places.length, own);
    for (const [p, place] of places.entries()) {
      const [top, left] = [ratio * Math.floor(place / width), ratio * (place % width)];
      for (let k = 0; k < own; k++) {
        const [channel, within] = [Math.floor(k / ratio ** 2), k % ratio ** 2];
        const row = channel * ratio * height + top + Math.floor(within / ratio);
        rows.data[p * own + k] = map[row * ratio * width + left + (within % ratio)]!;
      }
    }
    return rows;
  }
}

/** Matrices below each other. */
function below(parts: readonly Matrix[]): Matrix {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return matrix(rows, parts[0]!.columns, joined(parts.map(({ data }) => data)));
}
