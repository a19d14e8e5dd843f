import { z } from 'zod';
import { discard } from '../backends/addon.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { sigmoid } from '../numeric/softmax.js';
import { InferenceSession } from '../session/session.js';
import { boxReader } from '../skip/boxes.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { TensorMap } from '../skip/observer.js';
import { partsTogether } from '../skip/parts.js';
import { BOX_FORMS, type Boxes } from '../skip/promise.js';
import { late } from '../util/late.js';
import { checkOptions, parseStrict } from '../util/validation.js';
import { firstOutput } from './class-scores.js';
import { ImageClassifier } from './image-classifier.js';
import { type ImageClassifierOptions, sessionPart } from './image-options.js';
import { type ImageSource, isImageSource, nameOf } from './image-source.js';

/** Options of `ObjectDetector.from`: those of an image classifier, and how the outputs are read. */
export interface ObjectDetectorOptions extends ImageClassifierOptions {
  /** How the outputs hold boxes; when left out, what their shapes say. See docs/tasks.md. */
  boxes?: Boxes['form'] | undefined;
}

/** Options of `detect`. */
export interface DetectOptions {
  /** Boxes with a score above it are returned; 0.5 when left out. */
  threshold?: number | undefined;
  /** Used instead of the session's policy. */
  policy?: PolicySource | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | undefined;
}

/** An object in an image. */
export interface DetectedObject {
  /** Index of the class. */
  readonly index: number;
  /** Its label; the index as text if the model has no labels. */
  readonly label: string;
  /** 0 to 1. */
  readonly score: number;
  /** In pixels of the image, from its top left corner. */
  readonly box: { readonly x: number; readonly y: number; readonly width: number; readonly height: number };
}

const detectSchema = late(() =>
  z.strictObject({
    threshold: z.number().min(0).max(1).optional(),
    policy: z.custom<PolicySource>().optional(),
    signal: z.instanceof(AbortSignal).optional(),
  }),
);
const formSchema = late(() => z.enum(BOX_FORMS).optional());

const DEFAULT_THRESHOLD = 0.5;
/** Coordinates of which none is larger are shares of the sides: no box is as small as two pixels. */
const LARGEST_SHARE = 2;

/** Most boxes that networks with their own suppression leave. */
const MAX_LEFT = 1000;

/** What is read of a detector's outputs. */
interface Reading {
  readonly form: Boxes['form'];
  readonly outputs: readonly string[];
  /** Scores are logits of sigmoids. */
  readonly logits: boolean;
}

/**
 * Finds objects in images: a network with one image input, and boxes, scores and classes as outputs, with its preprocessing and labels.
 *
 * ```ts
 * const detector = await ObjectDetector.from('models/detector');
 * for (const { label, score, box } of await detector.detect('street.jpg')) console.log(label, score, box);
 * ```
 */
export class ObjectDetector {
  private constructor(
    private readonly images: ImageClassifier,
    /** The outputs that are read, and how. */
    readonly reading: Reading,
  ) {}

  /**
   * Loads a model, and `preprocessor_config.json` and `config.json` beside it if they exist.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no image or its outputs can't be boxes, INVALID_DATA for a
   * configuration file that can't be used, and what InferenceSession.create throws
   */
  static async from(path: string, options: ObjectDetectorOptions = {}): Promise<ObjectDetector> {
    checkOptions(options);
    const { boxes, ...rest } = options;
    const sessionOptions = sessionPart(rest, ['boxes']);
    const form = parseStrict(formSchema(), boxes, { subject: 'options.boxes' });
    const files = await findModel(path);
    const session = await InferenceSession.create(path, sessionOptions);
    const images = await ImageClassifier.over(session, files, rest, firstOutput);
    try {
      return ObjectDetector.over(images, form);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /** @internal */
  static over(images: ImageClassifier, form?: Boxes['form']): ObjectDetector {
    return new ObjectDetector(images, readingOf(images, form));
  }

  get session(): InferenceSession {
    return this.images.session;
  }

  /** Labels by class index; empty if the model has none. */
  get labels(): readonly string[] {
    return this.images.labelsKnown ? this.images.labels : [];
  }

  /**
   * The objects in one image, or in several, the highest score first.
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (an image can't be read), INVALID_SHAPE, MISSING_DEPENDENCY, ABORTED,
   * SESSION_RELEASED, and the errors of a policy that can't be used
   */
  detect(image: ImageSource, options?: DetectOptions): Promise<DetectedObject[]>;
  detect(images: readonly ImageSource[], options?: DetectOptions): Promise<DetectedObject[][]>;
  async detect(
    images: ImageSource | readonly ImageSource[],
    options: DetectOptions = {},
  ): Promise<DetectedObject[] | DetectedObject[][]> {
    const parsed = parseStrict(detectSchema(), options);
    if (isImageSource(images)) return this.#detect(images as ImageSource, 0, parsed);
    if (!Array.isArray(images))
      throw new ResidualSkipError('INVALID_ARGUMENT', 'detect: expected an image or an array of images');
    const answers: DetectedObject[][] = [];
    for (const [i, image] of images.entries()) answers.push(await this.#detect(image, i, parsed));
    return answers;
  }

  async #detect(image: ImageSource, index: number, options: DetectOptions): Promise<DetectedObject[]> {
    const { threshold = DEFAULT_THRESHOLD, ...rest } = options;
    const { tensor, width, height } = await this.images.prepareWhole(
      image,
      nameOf(image, index),
      rest.signal,
    );
    const outputs = await this.session.run(this.images.feeds(tensor), this.reading.outputs, rest);
    discard(tensor.data);
    return this.objectsOf(outputs, { width, height }, threshold);
  }

  /** The objects that the outputs of `session.run` name, for one image of this size. */
  objectsOf(
    outputs: TensorMap,
    { width, height }: { readonly width: number; readonly height: number },
    threshold = DEFAULT_THRESHOLD,
  ): DetectedObject[] {
    const { form, logits } = this.reading;
    const parts = partsTogether(this.reading.outputs.map((name) => outputs[name]!));
    const score = logits ? Math.log(threshold / (1 - threshold)) : threshold;
    const read = boxReader(parts, { form, score });
    if (!read) throw unreadable(this.images.name, this.session);
    const rows = read(parts);
    const { scale, offset, ...seen } = this.images.preprocessor.placementOf({ width, height });
    const shares = form === 'detr' || corners(rows).every((x) => Math.abs(x) <= LARGEST_SHARE);
    const place = (value: number, axis: 0 | 1) => {
      const pixel = shares ? value * (axis === 0 ? seen.width : seen.height) : value;
      return Math.min(Math.max((pixel - offset[axis]) / scale[axis], 0), axis === 0 ? width : height);
    };
    return Array.from({ length: rows.length / 6 }, (_, i) => {
      const [x1, y1, x2, y2, index, found] = rows.subarray(6 * i) as unknown as number[];
      const [x, y] = [place(x1!, 0), place(y1!, 1)];
      return {
        index: index!,
        label: this.labels[index!] ?? String(index),
        score: logits ? sigmoid(found!) : found!,
        box: { x, y, width: place(x2!, 0) - x, height: place(y2!, 1) - y },
      };
    });
  }

  /** Releases the session once its current runs have ended. Idempotent. */
  release(): Promise<void> {
    return this.images.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

/** More boxes than suppression leaves. */
const isMany = (rows: number | string | undefined) => typeof rows === 'number' && rows > MAX_LEFT;

const corners = (rows: Float32Array) => rows.filter((_, i) => i % 6 < 4);

/** What the names and shapes of the outputs say. */
function readingOf(
  { session, labels, labelsKnown, name }: ImageClassifier,
  asked: Boxes['form'] | undefined,
): Reading {
  const { outputMetadata, outputNames, policy } = session;
  // How boxes are read is true of the network, whatever became of the promise.
  const { boxes, outputs } = policy.promise ?? policy.voided ?? {};
  const given = asked ?? boxes?.form;
  const logits = outputMetadata.find((output) => output.name === 'logits');
  const isDetr = logits !== undefined && outputNames.includes('pred_boxes');
  const names = isDetr ? ['pred_boxes', 'logits'] : (outputs ?? outputNames);
  const reading = (form: Boxes['form'], ofSigmoid = false) => ({ form, outputs: names, logits: ofSigmoid });
  if (given) return reading(given);
  // Of as many scores as labels none is that of no object; each is a sigmoid.
  if (isDetr) {
    const own = labelsKnown && logits.shape[2] === labels.length;
    return own ? reading('centres', true) : reading('detr');
  }
  const [first] = outputMetadata;
  const [rows, columns] = first!.shape.slice(-2);
  if (outputMetadata.length > 1) return reading('corners');
  // Of a batch, each item has boxes of its own.
  const least = session.model.batching === 'item' ? 3 : 2;
  if (first!.shape.length < least || first!.shape.length > 3) throw unreadable(name, session);
  const counts = labelsKnown && labels.length;
  if (counts && columns === 5 + counts && rows !== 4 + counts && (columns !== 6 || isMany(rows)))
    return reading('yolov5');
  if (columns === 6 && !isMany(rows)) return reading('corners');
  // There are more boxes than classes.
  if (typeof columns === 'number' && columns > 5 && (typeof rows !== 'number' || rows > columns))
    return reading('yolov5');
  if (typeof rows === 'number' && rows > 4) return reading('yolo');
  throw unreadable(name, session);
}

function unreadable(name: string, { outputMetadata }: InferenceSession): ResidualSkipError {
  const found = outputMetadata.map((one) => `${one.name}: ${one.type}[${one.shape.join(', ')}]`).join('; ');
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: its outputs (${found}) can't be read as boxes; say how (boxes: ${BOX_FORMS.map((form) => `'${form}'`).join(', ')})`,
  );
}
