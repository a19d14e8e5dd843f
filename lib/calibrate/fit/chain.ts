/** A chain of heads, one for each exit point, fitted together on rows of features. */
import { setImmediate } from 'node:timers/promises';
import type { Backend } from '../../backends/backend.js';
import { generator, shuffle } from '../../numeric/random.js';
import type { ExitSpec } from '../../skip/exits.js';
import type { Head } from '../../skip/head.js';
import type { Basis } from './basis.js';
import type { ExitPoint } from './exit-points.js';
import { HeadInTraining, type Scale } from './head-training.js';
import { type Matrix, matrix } from './matrices.js';

/** A fitted exit without its threshold, which is chosen later. */
export type FittedExit = Omit<ExitSpec, 'threshold' | 'head'> & { readonly head: Head };

/** Training data of heads: rows, each of an image that the full network answered. */
export interface TrainingRows {
  /** The image of each row; several rows may be copies of one. */
  readonly images: Uint32Array;
  /** By exit point: rows x its width, standardised. */
  readonly features: readonly Matrix[];
  /** Rows x rank: the network's answers, as probabilities times the basis. */
  readonly targets: Matrix;
}

const { cos, PI } = Math;
/** Rows of a batch: fewer if there are few rows, so that there are enough steps. */
const [BATCH, SMALL_BATCH, FEW_ROWS] = [256, 64, 8192];
const RATE = 3e-3;

export class Chain {
  readonly #heads: HeadInTraining[];
  readonly #random: () => number;
  #time = 0;

  /**
   * @param scales of the features, by exit point
   * @param uses whether to train on an image
   */
  constructor(
    readonly backend: Backend,
    private readonly points: readonly ExitPoint[],
    private readonly scales: readonly Scale[],
    readonly hidden: number,
    basis: Basis,
    seed: number,
    private readonly uses: (image: number) => boolean,
  ) {
    const random = generator(seed);
    this.#heads = points.map(
      ({ width }, i) => new HeadInTraining(backend, width, i > 0 ? hidden : 0, hidden, basis, random),
    );
    this.#random = generator(seed + 1);
  }

  /**
   * Goes over the rows several times, in another order each time.
   * @param from fraction of the whole training that is done, 0 to 1, and `to` the fraction afterwards: the rate falls
   * along a cosine
   */
  async train(data: TrainingRows, epochs: number, from: number, to: number): Promise<void> {
    const rows = Array.from(data.images.keys()).filter((row) => this.uses(data.images[row]!));
    const size = rows.length < FEW_ROWS ? SMALL_BATCH : BATCH;
    const batches = Math.ceil(rows.length / size);
    const steps = batches * epochs;
    for (let step = 0; step < steps; step++) {
      if (step % batches === 0) shuffle(rows, this.#random);
      const at = (step % batches) * size;
      // The last batch of an epoch is filled up with the first rows.
      const batch = Uint32Array.from({ length: size }, (_, i) => rows[(at + i) % rows.length]!);
      const done = from + ((to - from) * step) / steps;
      this.#step(data, batch, (RATE * (1 + cos(PI * done))) / 2);
      if (step % 8 === 0) await setImmediate();
    }
  }

  #step(data: TrainingRows, batch: Uint32Array, rate: number): void {
    this.#time++;
    const targets = gather(data.targets, batch);
    let before: Matrix | undefined;
    for (const [i, head] of this.#heads.entries()) {
      before = head.train(data.features[i]!, batch, targets, before, this.#time, rate);
    }
  }

  release(): void {
    for (const head of this.#heads) head.release();
  }

  exits(): FittedExit[] {
    return this.points.map(({ block, features }, i) => ({
      after: block.name,
      ...(i > 0 && { reads: this.points[i - 1]!.block.name }),
      head: { features, layers: this.#heads[i]!.layers(this.scales[i]!) },
    }));
  }
}

function gather({ columns, data }: Matrix, rows: Uint32Array): Matrix {
  const gathered = matrix(rows.length, columns);
  for (const [i, row] of rows.entries()) {
    gathered.data.set(data.subarray(row * columns, (row + 1) * columns), i * columns);
  }
  return gathered;
}
