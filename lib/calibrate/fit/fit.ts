/**
 * Fits the heads of exits to the full network's answers. No labels are needed, so altered copies of the images can be used
 * as well. Features are kept for as many rows at a time as memory allows; the network runs once for each copy.
 */

import type { Backend } from '../../backends/backend.js';
import { ResidualSkipError } from '../../errors.js';
import type { Program } from '../../model/program/program.js';
import { answerOf } from '../../skip/losses.js';
import { meaningOf } from '../../skip/scores.js';
import { checkAnswers } from '../losses.js';
import { CHUNK, Evaluator, Programs } from '../run/evaluator.js';
import type { FitImages } from '../run/items.js';
import { type Basis, basisOf } from './basis.js';
import { Chain, type FittedExit } from './chain.js';
import { type ExitPoint, exitPoints, withFeatures } from './exit-points.js';
import { type Scale, scaleOf, standardise } from './head-training.js';
import { type Matrix, multiply } from './matrices.js';
import { copiesOf, type FilledRows, imageShape, isMirrorInvariant, MIRROR_ITEMS, RowBuffer } from './rows.js';

export interface Fitting {
  readonly seed: number;
  /** Most altered copies of each image. */
  readonly copies: number;
  /** The fold that an image is in. */
  readonly foldOf: (image: number) => number;
  /** For each chain of heads to fit: the folds that it learns from. */
  readonly chains: readonly (readonly number[])[];
  /** Of a class, for messages. */
  readonly className: (index: number) => string;
  /** Blocks behind which there may be exits; all when left out. */
  readonly behind?: ReadonlySet<string> | undefined;
  /** Called with a number of items whenever about as much work is done as running them takes. */
  readonly onItems: (count: number) => void;
}

/** Copies are made up to this many rows, or twice the number of images, but for at most this many multiply-adds. */
const [ROWS, MAX_WORK] = [100_000, 8e12];
/** Training steps of each head, in rows; least and most passes over the rows. */
const [SAMPLES, MIN_EPOCHS, MAX_EPOCHS] = [120_000, 3, 40];
/** Most bytes of features kept at a time, and the number of rows that are kept whatever their size. */
export const [MAX_BYTES, MIN_ROWS] = [2 ** 29, 4096];
/**
 * Width of the hidden layers, by the least number of images to learn from. Wider ones save little more, and their weights take
 * longer to read than the multiply-adds say.
 */
const HIDDEN: readonly (readonly [images: number, hidden: number])[] = [
  [16_000, 128],
  [4000, 64],
  [0, 32],
];
const MIN_HIDDEN = 8;
/** Largest share of the network's multiply-adds that a head may take. */
const MAX_SHARE = 0.01;

/** Cost of fitting, in items run by the full network: the sum that `onItems` reports. */
export function fittingWork(
  program: Program,
  images: number,
  { copies, chains }: Pick<Fitting, 'copies' | 'chains'>,
): number {
  const rows = rowsOf(program, images, copies);
  return rows * (1 + chains.length) + 2 * Math.min(images, MIRROR_ITEMS);
}

export function rowsOf(program: Program, images: number, max: number): number {
  const affordable = MAX_WORK / (images * program.cost.multiplyAdds);
  const copies = Math.min(max, Math.max(ROWS / images, 2), affordable) - 1;
  return images * (1 + (imageShape(program) ? Math.max(0, Math.floor(copies)) : 0));
}

/** Width of the hidden layers: by the number of images, reduced until no head costs more than its share. */
function hiddenWidth(
  program: Program,
  points: readonly ExitPoint[],
  images: number,
  classes: number,
): number {
  let hidden = HIDDEN.find(([min]) => images >= min)![1];
  const widest = Math.max(...points.map(({ width }) => width));
  const cost = () => hidden * (widest + hidden + classes);
  while (hidden > MIN_HIDDEN && cost() > MAX_SHARE * program.cost.multiplyAdds) hidden /= 2;
  return hidden;
}

/**
 * Fits exits with heads, in the network's order: one list of them for each of `chains`.
 * @throws ResidualSkipError INVALID_DATA when the network answers all images alike, or with NaN, or no image can be used
 */
export async function fitExits(
  backend: Backend,
  network: Program | Programs,
  source: FitImages,
  fitting: Fitting,
): Promise<FittedExit[][]> {
  const { seed, onItems } = fitting;
  const programs = Programs.of(network);
  const program = programs.main;
  const points = exitPoints(program, source.count).filter(
    ({ block }) => fitting.behind?.has(block.name) ?? true,
  );
  if (points.length === 0) return fitting.chains.map(() => []);
  const plan = planOf(program, points, source.count, fitting.copies);
  const evaluator = new Evaluator(
    backend,
    programs.map((one) => withFeatures(one, points)),
  );
  const meaning = meaningOf(program, program.outputs[0]!.value);
  const buffer = new RowBuffer(plan.capacity, plan.classes, points, meaning);
  let training: Training | undefined;
  try {
    const mirror = await isMirrorInvariant(evaluator, source, program, onItems);
    const inputs = copiesOf(source, plan.rows, imageShape(program), { mirror, foldOf: fitting.foldOf }, seed);
    for (let done = 0; ; ) {
      const rows = await buffer.fill(inputs, evaluator, onItems);
      if (rows.images.length === 0) break;
      training ??= new Training(backend, points, plan, rows, fitting);
      await training.train(rows, done, onItems);
      done += rows.images.length;
    }
    if (training) return training.chains.map((chain) => chain.exits());
    throw new ResidualSkipError(
      'INVALID_DATA',
      `fit: none of its ${source.count} images can be used: they can't be read, or are among the data; give others, or none: a part of the data then fits`,
    );
  } finally {
    for (const chain of training?.chains ?? []) chain.release();
    evaluator.release();
  }
}

type Plan = ReturnType<typeof planOf>;

/** Sizes that follow from the network and the number of images. */
function planOf(program: Program, points: readonly ExitPoint[], images: number, copies: number) {
  const rows = rowsOf(program, images, copies);
  const classes = program.values[program.outputs[0]!.value]!.shape[1]!;
  const bytes = 4 * (classes + points.reduce((sum, { width }) => sum + width, 0));
  const kept = Math.min(rows, Math.max(MIN_ROWS, Math.floor(MAX_BYTES / bytes)));
  return {
    rows,
    classes,
    /** Rows kept at a time. */
    capacity: Math.ceil(kept / CHUNK) * CHUNK,
    epochs: Math.min(MAX_EPOCHS, Math.max(MIN_EPOCHS, Math.round(SAMPLES / rows))),
    hidden: hiddenWidth(program, points, images, classes),
  };
}

/** The chains in training; the first rows decide their basis and scales. */
class Training {
  readonly #basis: Basis;
  readonly #scales: readonly Scale[];
  readonly chains: readonly Chain[];

  constructor(
    private readonly backend: Backend,
    points: readonly ExitPoint[],
    private readonly plan: Plan,
    { features, scores }: FilledRows,
    { chains, foldOf, seed, className }: Fitting,
  ) {
    checkAnswers(answersOf(scores), className);
    const [basis, scales] = [basisOf(backend, scores, seed), features.map(scaleOf)];
    [this.#basis, this.#scales] = [basis, scales];
    this.chains = chains.map((folds) => {
      const uses = (image: number) => folds.includes(foldOf(image));
      return new Chain(backend, points, scales, plan.hidden, basis, seed, uses);
    });
  }

  /** Trains all chains on some rows, of which `done` went before. */
  async train({ images, features, targets }: FilledRows, done: number, onItems: Fitting['onItems']) {
    for (const [i, own] of features.entries()) standardise(own, this.#scales[i]!);
    const data = { images, features, targets: multiply(this.backend, targets, this.#basis.directions) };
    const { rows, epochs } = this.plan;
    for (const chain of this.chains) {
      await chain.train(data, epochs, done / rows, (done + images.length) / rows);
      onItems(images.length);
    }
  }
}

function answersOf({ rows, columns, data }: Matrix): number[] {
  return Array.from({ length: rows }, (_, row) =>
    answerOf(data.subarray(row * columns, (row + 1) * columns)),
  );
}
