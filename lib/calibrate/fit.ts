/**
 * Fits the heads of exits to the full network's answers. No labels are needed, so altered copies of the images can be used
 * as well. Features are kept for as many rows at a time as memory allows; the network runs once for each copy.
 */

import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import { generator, shuffle } from '../numeric/random.js';
import { type Meaning, meaningOf, probabilities } from '../skip/scores.js';
import type { TensorData } from '../tensor/tensor.js';
import { answerOf, checkedAnswer } from './answers.js';
import { altered } from './augment.js';
import { Chain, type FittedExit } from './chain.js';
import { checkAnswers } from './checks.js';
import { CHUNK, Evaluator, runAll } from './evaluator.js';
import { withFeatures } from './features.js';
import { basisOf } from './low-rank.js';
import type { FitImages } from './options.js';
import { exitPlaces, type Place } from './places.js';
import { type Matrix, matrix, multiply } from './products.js';
import { Programs } from './programs.js';
import { scaleOf, standardise } from './training.js';

export interface Fitting {
  readonly seed: number;
  /** Most altered copies of each image. */
  readonly copies: number;
  /** For each chain of heads to fit: whether it learns from an image. */
  readonly chains: readonly ((image: number) => boolean)[];
  readonly className: (index: number) => string;
  /** Blocks behind which there may be exits; all when left out. */
  readonly behind?: ReadonlySet<string> | undefined;
  /** Called with a number of items whenever about as much work is done as running them takes. */
  readonly onItems: (count: number) => void;
}

/** Copies are made up to this many rows, or twice the number of images, but for at most this many multiply-adds. */
const [ROWS, MOST_WORK] = [40_000, 4e12];
/** Training steps of each head, in rows; least and most passes over the rows. */
const [SAMPLES, LEAST_EPOCHS, MOST_EPOCHS] = [120_000, 4, 40];
/** Most bytes of features kept at a time, and the number of rows that are kept whatever their size. */
const [MOST_BYTES, LEAST_ROWS] = [2 ** 29, 4096];
/** Mirrored copies are used when the network answers at least this share of these many images alike when mirrored. */
const [MIRROR_ITEMS, MIRROR_AGREEMENT] = [256, 0.8];
/**
 * Width of the hidden layers, by the least number of images to learn from. Wider ones save little more, and their weights take
 * longer to read than the multiply-adds say.
 */
const HIDDEN: readonly (readonly [images: number, hidden: number])[] = [
  [16_000, 128],
  [4000, 64],
  [0, 32],
];
const LEAST_HIDDEN = 8;
/** Least probability, so that its logarithm is finite. */
const TINY = 1e-12;
/** Largest share of the network's multiply-adds that a head may take. */
const MOST_SHARE = 0.01;

/** Cost of fitting, in items run by the full network: the sum that `onItems` reports. */
export function fittingWork(
  program: Program,
  images: number,
  { copies, chains }: Pick<Fitting, 'copies' | 'chains'>,
): number {
  const rows = rowsOf(program, images, copies);
  return rows * (1 + chains.length) + 2 * Math.min(images, MIRROR_ITEMS);
}

function rowsOf(program: Program, images: number, most: number): number {
  const affordable = MOST_WORK / (images * program.cost.multiplyAdds);
  const copies = Math.min(most, Math.max(ROWS / images, 2), affordable) - 1;
  return images * (1 + (imageShape(program) ? Math.max(0, Math.floor(copies)) : 0));
}

/** Channels, height and width of the input; undefined when it is not an image. */
function imageShape({ inputs, values }: Program): [number, number, number] | undefined {
  const [items, channels, height, width] = values[inputs[0]!.value]!.shape;
  return items === 1 && width !== undefined ? [channels!, height!, width] : undefined;
}

/** Width of the hidden layers: by the number of images, reduced until no head costs more than its share. */
function hiddenWidth(program: Program, places: readonly Place[], images: number, classes: number): number {
  let hidden = HIDDEN.find(([least]) => images >= least)![1];
  const widest = Math.max(...places.map(({ width }) => width));
  const cost = () => hidden * (widest + hidden + classes);
  while (hidden > LEAST_HIDDEN && cost() > MOST_SHARE * program.cost.multiplyAdds) hidden /= 2;
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
  const { seed, copies, onItems } = fitting;
  const programs = Programs.of(network);
  const program = programs.main;
  const places = exitPlaces(program, source.count).filter(
    ({ block }) => fitting.behind?.has(block.name) ?? true,
  );
  if (places.length === 0) return fitting.chains.map(() => []);
  const rows = rowsOf(program, source.count, copies);
  const classes = program.values[program.outputs[0]!.value]!.shape[1]!;
  const bytes = 4 * (classes + places.reduce((sum, { width }) => sum + width, 0));
  const most = Math.min(rows, Math.max(LEAST_ROWS, Math.floor(MOST_BYTES / bytes)));
  const capacity = Math.ceil(most / CHUNK) * CHUNK;
  const epochs = Math.min(MOST_EPOCHS, Math.max(LEAST_EPOCHS, Math.round(SAMPLES / rows)));
  const hidden = hiddenWidth(program, places, source.count, classes);
  const evaluator = new Evaluator(
    backend,
    programs.map((one) => withFeatures(one, places)),
  );
  const memory = new LessonMemory(capacity, classes, places, meaningOf(program, program.outputs[0]!.value));
  /** What the first lesson decides. */
  const begin = (features: readonly Matrix[], scores: Matrix) => {
    checkAnswers(answersOf(scores), fitting.className);
    const [basis, scales] = [basisOf(backend, scores, seed), features.map(scaleOf)];
    const chains = fitting.chains.map(
      (teaches) => new Chain(backend, places, scales, hidden, basis, seed, teaches),
    );
    return { basis, scales, chains };
  };
  let course: ReturnType<typeof begin> | undefined;
  try {
    const mirror = await mindsNoMirror(evaluator, source, program, onItems);
    const inputs = copiesOf(source, rows, imageShape(program), mirror, seed);
    let done = 0;
    for (;;) {
      const { images, features, targets, scores } = await memory.fill(inputs, evaluator, onItems);
      if (images.length === 0) break;
      course ??= begin(features, scores);
      const { basis, scales, chains } = course;
      for (const [i, own] of features.entries()) standardise(own, scales[i]!);
      const lesson = { images, features, targets: multiply(backend, targets, basis.directions) };
      const before = done / rows;
      done += images.length;
      for (const chain of chains) {
        await chain.learn(lesson, epochs, before, done / rows);
        onItems(images.length);
      }
    }
    if (course) return course.chains.map((chain) => chain.exits());
    throw new ResidualSkipError(
      'INVALID_DATA',
      `fit: none of its ${source.count} images can be used: they can't be read, or are among the data`,
    );
  } finally {
    for (const chain of course?.chains ?? []) chain.release();
    evaluator.release();
  }
}

/** An image with its index. */
interface Indexed {
  readonly image: number;
  readonly input: TensorData;
}

/** The images in random order, then altered copies of them, until there are `rows` of them; a chunk at a time. */
async function* copiesOf(
  source: FitImages,
  rows: number,
  shape: [number, number, number] | undefined,
  mirror: boolean,
  seed: number,
): AsyncGenerator<Indexed[]> {
  const random = generator(seed);
  const order = Array.from({ length: source.count }, (_, i) => i);
  for (let copy = 0; copy * source.count < rows; copy++) {
    shuffle(order, random);
    for (let at = 0; at < order.length; at += CHUNK) {
      const images = order.slice(at, at + CHUNK);
      const loaded = await Promise.all(images.map((image) => source.load(image)));
      yield images.flatMap((image, i) => {
        const input = loaded[i];
        if (!input) return [];
        if (copy === 0 || !shape) return [{ image, input }];
        const changed = altered(input as Float32Array, shape, mirror && copy % 2 === 1, random);
        return [{ image, input: changed }];
      });
    }
  }
}

/** Buffers for rows of features, reused for each lesson. */
class LessonMemory {
  readonly #images: Uint32Array;
  readonly #features: readonly Matrix[];
  /** The network's answers as probabilities, and as logits. */
  readonly #targets: Matrix;
  readonly #scores: Matrix;
  #rows = 0;

  /** @param capacity in rows, a multiple of CHUNK */
  constructor(
    private readonly capacity: number,
    classes: number,
    places: readonly Place[],
    private readonly meaning: Meaning,
  ) {
    this.#images = new Uint32Array(capacity);
    this.#features = places.map(({ width }) => matrix(capacity, width));
    this.#targets = matrix(capacity, classes);
    this.#scores = matrix(capacity, classes);
  }

  /** Reads as many further inputs as fit: there are no images when all have been read. */
  async fill(
    inputs: AsyncGenerator<Indexed[]>,
    evaluator: Evaluator,
    onItems: (count: number) => void,
  ): Promise<{ images: Uint32Array; features: Matrix[]; targets: Matrix; scores: Matrix }> {
    this.#rows = 0;
    while (this.#rows + CHUNK <= this.capacity) {
      const { value: chunk, done } = await inputs.next();
      if (done) break;
      const outcomes = await evaluator.run(
        chunk.map(({ input }) => input),
        evaluator.policy(runAll),
        onItems,
      );
      for (const [i, { outputs }] of outcomes.entries()) this.#add(chunk[i]!.image, outputs);
    }
    const filled = ({ columns, data }: Matrix) =>
      matrix(this.#rows, columns, data.subarray(0, this.#rows * columns));
    return {
      images: this.#images.subarray(0, this.#rows),
      features: this.#features.map(filled),
      targets: filled(this.#targets),
      scores: filled(this.#scores),
    };
  }

  #add(image: number, [scores, ...seen]: readonly Float32Array[]): void {
    const row = this.#rows++;
    checkedAnswer(scores!);
    this.#images[row] = image;
    const { columns } = this.#scores;
    const logits = this.meaning === 'logits' ? scores! : scores!.map((p) => Math.log(Math.max(p, TINY)));
    this.#scores.data.set(logits, row * columns);
    this.#targets.data.set(probabilities(scores!, this.meaning), row * columns);
    for (const [i, { columns: width, data }] of this.#features.entries()) data.set(seen[i]!, row * width);
  }
}

function answersOf({ rows, columns, data }: Matrix): number[] {
  return Array.from({ length: rows }, (_, row) =>
    answerOf(data.subarray(row * columns, (row + 1) * columns)),
  );
}

async function mindsNoMirror(
  evaluator: Evaluator,
  source: FitImages,
  program: Program,
  onItems: (count: number) => void,
): Promise<boolean> {
  const shape = imageShape(program);
  if (!shape) return false;
  const count = Math.min(MIRROR_ITEMS, source.count);
  // Spread evenly, because the images may be sorted.
  const chosen = Array.from({ length: count }, (_, i) => Math.floor((i * source.count) / count));
  const loaded = await Promise.all(chosen.map((image) => source.load(image)));
  const some = loaded.filter((input): input is Float32Array => input !== undefined);
  const still = () => 0.5;
  const answers = async (images: readonly Float32Array[]) =>
    (await evaluator.run(images, evaluator.policy(runAll), onItems)).map(({ outputs }) =>
      answerOf(outputs[0]!),
    );
  const [plain, mirrored] = [
    await answers(some),
    await answers(some.map((input) => altered(input, shape, true, still))),
  ];
  return plain.filter((answer, i) => answer === mirrored[i]).length >= MIRROR_AGREEMENT * some.length;
}
