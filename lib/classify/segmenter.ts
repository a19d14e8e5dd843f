import { z } from 'zod';
import { discard } from '../backends/addon.js';
import { encodePng, type RawImage } from '../data/image.js';
import { findModel } from '../data/model-files.js';
import type { Placement } from '../data/preprocess.js';
import { ResidualSkipError } from '../errors.js';
import { InferenceSession } from '../session/session.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { TensorMap } from '../skip/observer.js';
import { isFloat, type Tensor, toFloat32 } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { parseStrict } from '../util/validation.js';
import { answerOutput } from './class-scores.js';
import { ImageClassifier } from './image-classifier.js';
import { type ImageClassifierOptions, sessionPart } from './image-options.js';
import { type ImageSource, isImageSource, nameOf } from './image-source.js';

/** Options of `segment`. */
export interface SegmentOptions {
  /** Used instead of the session's policy. */
  policy?: PolicySource | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | undefined;
}

/** A class in an image. */
export interface SegmentedClass {
  /** Index of the class: its pixels have this number in the mask. */
  readonly index: number;
  /** Its label; the index as text if the model has no labels. */
  readonly label: string;
  /** Its part of the pixels, 0 to 1. */
  readonly share: number;
}

/** Outputs of networks such as MaskFormer and DETR for panoptic maps, whose scores of classes are no map. */
const MASKS_OF_QUERIES = ['masks_queries_logits', 'pred_masks'];

const segmentSchema = late(() =>
  z.strictObject({
    policy: z.custom<PolicySource>().optional(),
    signal: z.instanceof(AbortSignal).optional(),
  }),
);

/** A class for each pixel of an image. */
export class Segmentation {
  /** @internal */
  constructor(
    readonly width: number,
    readonly height: number,
    /** The index of each pixel's class, row by row. */
    readonly mask: Uint16Array,
    /** The classes in the image, the largest first. */
    readonly classes: readonly SegmentedClass[],
  ) {}

  /** The mask in colours, those of PASCAL VOC: class 0 is black. */
  toImage(): RawImage {
    const data = new Uint8Array(3 * this.mask.length);
    const colours = new Map(this.classes.map(({ index }) => [index, colourOf(index)]));
    for (const [i, index] of this.mask.entries()) data.set(colours.get(index)!, 3 * i);
    return { width: this.width, height: this.height, channels: 3, data };
  }

  /** The same as a PNG file; needs the package `sharp`. */
  toPng(): Promise<Uint8Array> {
    return encodePng(this.toImage());
  }
}

/**
 * A class for each pixel of images: a network with one image input and a map of classes or of their scores, with its preprocessing
 * and labels.
 *
 * ```ts
 * const segmenter = await Segmenter.from('models/segformer');
 * const { classes, mask } = await segmenter.segment('street.jpg');
 * ```
 */
export class Segmenter {
  private constructor(private readonly images: ImageClassifier) {}

  /**
   * Loads a model, and `preprocessor_config.json` and `config.json` beside it if they exist.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no image or has no map, INVALID_DATA for a configuration file that
   * can't be used, and what InferenceSession.create throws
   */
  static async from(path: string, options: ImageClassifierOptions = {}): Promise<Segmenter> {
    const sessionOptions = sessionPart(options);
    const files = await findModel(path);
    const session = await InferenceSession.create(path, sessionOptions);
    const images = await ImageClassifier.over(session, files, options, answerOutput);
    try {
      return Segmenter.over(images);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /** @internal */
  static over(images: ImageClassifier): Segmenter {
    const { name, output, session } = images;
    const { shape, type } = session.outputMetadata.find((port) => port.name === output)!;
    const masks = session.outputNames.find((one) => MASKS_OF_QUERIES.includes(one));
    if (masks) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `${name}: output '${masks}' holds a mask for each object that it looks for, which Segmenter can't read; run the session ` +
          'and join the masks with their classes',
      );
    }
    if (shape.length === 3 || shape.length === 4) return new Segmenter(images);
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${name}: output '${output}' (${type}[${shape.join(', ')}]) holds no map, floats [batch, classes, height, width] or ` +
        'integers [batch, height, width]',
    );
  }

  get session(): InferenceSession {
    return this.images.session;
  }

  /** Labels by class index; empty if the model has none. */
  get labels(): readonly string[] {
    return this.images.labelsKnown ? this.images.labels : [];
  }

  /**
   * The classes of the pixels of one image, or of several, at the size of the image. Scores of a smaller map are interpolated.
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (an image can't be read), INVALID_SHAPE, MISSING_DEPENDENCY, ABORTED,
   * SESSION_RELEASED, and the errors of a policy that can't be used
   */
  segment(image: ImageSource, options?: SegmentOptions): Promise<Segmentation>;
  segment(images: readonly ImageSource[], options?: SegmentOptions): Promise<Segmentation[]>;
  async segment(
    images: ImageSource | readonly ImageSource[],
    options: SegmentOptions = {},
  ): Promise<Segmentation | Segmentation[]> {
    const parsed = parseStrict(segmentSchema(), options);
    if (isImageSource(images)) return this.#segment(images as ImageSource, 0, parsed);
    if (!Array.isArray(images))
      throw new ResidualSkipError('INVALID_ARGUMENT', 'segment: expected an image or an array of images');
    const answers: Segmentation[] = [];
    for (const [i, image] of images.entries()) answers.push(await this.#segment(image, i, parsed));
    return answers;
  }

  async #segment(image: ImageSource, index: number, options: SegmentOptions): Promise<Segmentation> {
    const { tensor, width, height } = await this.images.prepareWhole(
      image,
      nameOf(image, index),
      options.signal,
    );
    const outputs = await this.session.run(this.images.feeds(tensor), [this.images.output], options);
    discard(tensor.data);
    return this.segmentationOf(outputs, { width, height });
  }

  /** What the outputs of `session.run` say of one image of this size. */
  async segmentationOf(
    outputs: TensorMap,
    { width, height }: { readonly width: number; readonly height: number },
  ): Promise<Segmentation> {
    const placement = this.images.preprocessor.placementOf({ width, height });
    const output = outputs[this.images.output]!;
    const mask = await inTurns(classesOf(output, { width, height }, placement));
    const counts = new Map<number, number>();
    for (const index of mask) counts.set(index, (counts.get(index) ?? 0) + 1);
    const classes = [...counts].map(([index, count]) => ({
      ...{ index, label: this.labels[index] ?? String(index) },
      share: count / mask.length,
    }));
    classes.sort((a, b) => b.share - a.share || a.index - b.index);
    return new Segmentation(width, height, mask, classes);
  }

  /** Releases the session once its current runs have ended. Idempotent. */
  release(): Promise<void> {
    return this.images.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

interface Sides {
  readonly width: number;
  readonly height: number;
}

/** Which two elements of a row of `length` are at each pixel of the image, and the share of the second. */
function positions(pixels: number, scale: number, offset: number, seen: number, length: number) {
  return Array.from({ length: pixels }, (_, i) => {
    const at = (((i + 0.5) * scale + offset) * length) / seen - 0.5;
    const clamped = Math.min(Math.max(at, 0), length - 1);
    const low = Math.floor(clamped);
    return { low, high: Math.min(low + 1, length - 1), share: clamped - low };
  });
}

/** The class of each pixel: of the largest interpolated score, or of the nearest element. */
function* classesOf(output: Tensor, { width, height }: Sides, place: Placement): Sliced<Uint16Array> {
  const [rows = 1, columns = 1] = output.dims.slice(-2);
  const xs = positions(width, place.scale[0], place.offset[0], place.width, columns);
  const ys = positions(height, place.scale[1], place.offset[1], place.height, rows);
  const mask = new Uint16Array(width * height);
  const count = output.size / (rows * columns);
  const scores = isFloat(output) ? toFloat32(output).data : undefined;
  // Of a single map, whose numbers are probabilities if all are.
  const threshold = count === 1 && scores?.every((score) => score >= 0 && score <= 1) ? 0.5 : 0;
  const line = new Float32Array(columns);
  const best = new Float32Array(width);
  for (const [y, { low, high, share }] of ys.entries()) {
    const pixels = mask.subarray(y * width, (y + 1) * width);
    if (!scores) {
      const row = columns * (share < 0.5 ? low : high);
      for (const [x, at] of xs.entries())
        pixels[x] = Number(output.data[row + (at.share < 0.5 ? at.low : at.high)]);
      yield;
      continue;
    }
    best.fill(count === 1 ? threshold : Number.NEGATIVE_INFINITY);
    for (let c = 0; c < count; c++) {
      const [upper, lower] = [(c * rows + low) * columns, (c * rows + high) * columns];
      for (let x = 0; x < columns; x++)
        line[x] = scores[upper + x]! * (1 - share) + scores[lower + x]! * share;
      for (let x = 0; x < width; x++) {
        const at = xs[x]!;
        const score = line[at.low]! * (1 - at.share) + line[at.high]! * at.share;
        if (score <= best[x]!) continue;
        best[x] = score;
        pixels[x] = count === 1 ? 1 : c;
      }
    }
    yield;
  }
  return mask;
}

/** The bits of the index, the lowest first, go to red, green and blue in turn, from the highest bit down. */
function colourOf(index: number): [number, number, number] {
  const colour: [number, number, number] = [0, 0, 0];
  for (let bit = 0; bit < 24; bit++) colour[bit % 3]! |= ((index >> bit) & 1) << (7 - Math.floor(bit / 3));
  return colour;
}
