/**
 * The rows that heads are trained on: features of images and of altered copies of them, with the network's answers. The full
 * network labels any image, so its answers to shifted and mirrored copies are training data as good as those to the images themselves.
 */

import type { Program } from '../../model/program/program.js';
import { generator, shuffle } from '../../numeric/random.js';
import { mean } from '../../numeric/statistics.js';
import { answerOf } from '../../skip/losses.js';
import { type Meaning, probabilities } from '../../skip/scores.js';
import type { TensorData } from '../../tensor/tensor.js';
import { checkedAnswer } from '../losses.js';
import { CHUNK, type Evaluator, runAll } from '../run/evaluator.js';
import type { FitImages } from '../run/items.js';
import type { TrainingRows } from './chain.js';
import type { ExitPoint } from './exit-points.js';
import { type Matrix, matrix } from './matrices.js';

/** Mirrored copies are used when the network answers at least this share of these many images alike when mirrored. */
export const MIRROR_ITEMS = 256;
const MIRROR_AGREEMENT = 0.8;
/** Least probability, so that its logarithm is finite. */
const TINY = 1e-12;
/**
 * Parts of the copies that have another image in them, and that have other colours. A network is surer of its training images than of any others;
 * of these copies it is as unsure as heads have to know it (Zhang et al. 2018, "mixup", with the network's answers instead of mixed labels).
 */
const [MIXED, RECOLOURED] = [0.4, 0.4];
/** Largest share of the other image. */
const MAX_OTHER = 0.5;
/** Of other colours, in standard deviations of the image: most contrast more or less, shift of a channel, and noise. */
const [CONTRAST, TINT, NOISE] = [0.4, 0.4, 0.25];
/** Largest shift, as a fraction of a side. */
const REACH = 1 / 8;

/**
 * A copy of an image, shifted by up to an eighth of its sides and possibly mirrored; the border is repeated outwards.
 */
export function altered(
  image: Float32Array,
  [channels, height, width]: readonly [number, number, number],
  mirror: boolean,
  random: () => number,
): Float32Array {
  const shift = (side: number) => Math.round((2 * random() - 1) * REACH * side);
  const [down, right] = [shift(height), shift(width)];
  const copy = new Float32Array(image.length);
  const inside = (at: number, side: number) => Math.min(side - 1, Math.max(0, at));
  for (let row = 0; row < channels * height; row++) {
    const from = (row - (row % height) + inside((row % height) + down, height)) * width;
    for (let x = 0; x < width; x++) {
      copy[row * width + x] = image[from + inside((mirror ? width - 1 - x : x) + right, width)]!;
    }
  }
  return copy;
}

/** An image with a share of another one in it. */
function mixed(image: Float32Array, other: Float32Array, share: number): Float32Array {
  return image.map((value, i) => (1 - share) * value + share * other[i]!);
}

/** An image with another contrast, other colours, and every other time with noise. */
export function recoloured(image: Float32Array, channels: number, random: () => number): Float32Array {
  const either = () => 2 * random() - 1;
  const size = image.length / channels;
  const contrast = 1 + CONTRAST * either();
  const level = mean(image);
  const spread = Math.sqrt(mean(image.map((value) => (value - level) ** 2)));
  const noise = random() < 0.5 ? 0 : NOISE * random() * spread;
  const copy = new Float32Array(image.length);
  for (let channel = 0; channel < channels; channel++) {
    const own = image.subarray(channel * size, (channel + 1) * size);
    const middle = mean(own);
    const tint = TINT * either() * spread;
    const speck = () => (noise > 0 ? noise * either() : 0);
    copy.set(
      own.map((value) => middle + contrast * (value - middle) + tint + speck()),
      channel * size,
    );
  }
  return copy;
}

/** Channels, height and width of the only input; undefined when it is not an image. */
export function imageShape({ inputs, values }: Program): [number, number, number] | undefined {
  const [items, channels, height, width] = values[inputs[0]!.value]!.shape;
  const isImage = inputs.length === 1 && items === 1 && width !== undefined;
  return isImage ? [channels!, height!, width] : undefined;
}

/** An image with its index. */
interface Indexed {
  readonly image: number;
  readonly input: TensorData;
}

/**
 * The images in random order, then altered copies of them, until there are `rows` of them; a chunk at a time.
 * @param foldOf where given, some copies have a share of another image of the same fold in them, and some other colours
 */
export async function* copiesOf(
  source: FitImages,
  rows: number,
  shape: [number, number, number] | undefined,
  { mirror = false, foldOf }: { readonly mirror?: boolean; readonly foldOf?: (image: number) => number },
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
        const kind = foldOf ? random() : 1;
        if (kind >= MIXED + RECOLOURED) return [{ image, input: changed }];
        if (kind >= MIXED) return [{ image, input: recoloured(changed, shape[0], random) }];
        const others = loaded.filter((one, k) => one && foldOf!(images[k]!) === foldOf!(image));
        const other = others[Math.floor(random() * others.length)] as Float32Array;
        return [{ image, input: mixed(changed, other, MAX_OTHER * random()) }];
      });
    }
  }
}

/** Rows of features, each of an image that the full network answered. */
export interface FilledRows extends TrainingRows {
  /** The network's answers as logits; `targets` are probabilities. */
  readonly scores: Matrix;
}

/** Buffers for rows of features, filled again and again. */
export class RowBuffer {
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
    points: readonly ExitPoint[],
    private readonly meaning: Meaning,
  ) {
    this.#images = new Uint32Array(capacity);
    this.#features = points.map(({ width }) => matrix(capacity, width));
    this.#targets = matrix(capacity, classes);
    this.#scores = matrix(capacity, classes);
  }

  /** Reads as many further inputs as fit: there are no images when all have been read. */
  async fill(
    inputs: AsyncGenerator<Indexed[]>,
    evaluator: Evaluator,
    onItems: (count: number) => void,
  ): Promise<FilledRows> {
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

/** Whether the network answers mirrored images as it does the images. */
export async function isMirrorInvariant(
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
