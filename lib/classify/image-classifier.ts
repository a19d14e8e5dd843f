import { z } from 'zod';
import { discard } from '../backends/addon.js';
import type { RawImage } from '../data/image.js';
import { findModel, type ModelFiles } from '../data/model-files.js';
import type { Preprocessor } from '../data/preprocess.js';
import { ResidualSkipError } from '../errors.js';
import { InferenceSession } from '../session/session.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloat, Tensor, toFloat32 } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { parseStrict } from '../util/validation.js';
import { type answerOutput, classOutput, type Prediction, predictions } from './class-scores.js';
import { checkMaxPixels, imageInput, preprocessorOf } from './image-input.js';
import { checkOwn, type ImageClassifierOptions, sessionPart } from './image-options.js';
import { runImages } from './image-runs.js';
import { type ImageSource, isImageSource, nameOf, toRawImage } from './image-source.js';
import { guessOf } from './pixel-doubt.js';
import { notePreparation } from './policy-doubt.js';
import { makeNote, type WorkOptions } from './work.js';

/** Options of `classify`. */
export interface ClassifyOptions {
  /** Classes to return, most probable first; 5 when left out. */
  topK?: number | undefined;
  /** Also return what each image ran and skipped. */
  trace?: boolean | undefined;
  /** Used instead of the session's policy. */
  policy?: PolicySource | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | undefined;
}

/** The answer for one image. */
export interface ImageClassification extends Prediction {
  /** The `topK` most probable classes; the first is this answer. */
  readonly top: readonly Prediction[];
  /** What the image ran and skipped; null unless `trace` was asked for. */
  readonly trace: ItemTrace | null;
}

/** @internal */
export interface WholeImage {
  /** Of the image. */
  readonly width: number;
  readonly height: number;
  readonly tensor: Tensor<'float32'>;
}

const TOP_K = 5;

const classifySchema = late(() =>
  z.strictObject({
    topK: z.int().positive().optional(),
    trace: z.boolean().optional(),
    policy: z.custom<PolicySource>().optional(),
    signal: z.instanceof(AbortSignal).optional(),
  }),
);

/**
 * An image classifier: a network with one image input and one score per class, its preprocessing and its labels.
 *
 * ```ts
 * const classifier = await ImageClassifier.from('models/resnet');
 * const { label, probability } = await classifier.classify('cat.jpg');
 * ```
 */
export class ImageClassifier {
  #guessNoted = false;

  private constructor(
    /** Name of the model: that of its folder if the file is called model.onnx, otherwise that of the file. */
    readonly name: string,
    /** The ONNX file. */
    readonly file: string,
    readonly labels: readonly string[],
    /** False if the labels are only the class indices. */
    readonly labelsKnown: boolean,
    readonly session: InferenceSession,
    /** False if the preprocessing is a guess, because no configuration describes it. */
    readonly preprocessorKnown: boolean,
    /** How pixels are prepared. */
    readonly preprocessor: Preprocessor,
    private readonly input: string,
    /** Name of the output that holds the scores. */
    readonly output: string,
    private readonly maxPixels: number | undefined,
    /** Whether the network takes one image without an axis for the batch. */
    private readonly alone: boolean,
    private readonly problem: string | undefined,
    private readonly onNote: WorkOptions['onNote'],
  ) {}

  /**
   * Loads a model, and `preprocessor_config.json` and `config.json` beside it if they exist.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no image or has no class scores, INVALID_DATA for a
   * configuration file that can't be used, and what InferenceSession.create throws
   */
  static async from(path: string, options: ImageClassifierOptions = {}): Promise<ImageClassifier> {
    const sessionOptions = sessionPart(options);
    checkMaxPixels(options.maxPixels);
    const files = await findModel(path);
    const session = await InferenceSession.create(path, sessionOptions);
    return ImageClassifier.over(session, files, options, classOutput);
  }

  /**
   * Over a session, which is released if this fails.
   * @param outputOf chooses the output; without classes, `classify` fails
   * @throws ResidualSkipError as `from`
   * @internal
   */
  static async over(
    session: InferenceSession,
    files: ModelFiles,
    { labels: ownLabels, preprocessor: ownConfig, maxPixels: ownLimit, onNote }: ImageClassifierOptions,
    outputOf: typeof answerOutput,
  ): Promise<ImageClassifier> {
    try {
      const maxPixels = checkMaxPixels(ownLimit);
      checkOwn({ labels: ownLabels, onNote });
      const known = ownLabels ?? files.labels;
      const image = imageInput(session.inputMetadata, files.name);
      const { output, classes } = outputOf(session.outputMetadata, known?.length, files.name, {
        labelsFrom: ownLabels ? 'options.labels' : 'config.json',
      });
      const preprocessor = preprocessorOf(image, files, ownConfig);
      const preparation = { what: 'images', id: () => preprocessor.id, labels: known } as const;
      await notePreparation(session.ownPolicy, preparation, onNote);
      return new ImageClassifier(
        files.name,
        files.model,
        known ?? Array.from({ length: classes ?? 0 }, (_, index) => String(index)),
        known !== undefined,
        session,
        (ownConfig ?? files.preprocessor) !== undefined,
        preprocessor,
        image.name,
        output,
        maxPixels,
        image.alone,
        files.problem,
        onNote,
      );
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /**
   * Classifies one image, or several at once on all of the engine's threads. The answers are in the order of the images.
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (an image can't be read), INVALID_SHAPE,
   * MISSING_DEPENDENCY, ABORTED, SESSION_RELEASED, and the errors of a policy that can't be used
   */
  classify(image: ImageSource, options?: ClassifyOptions): Promise<ImageClassification>;
  classify(images: readonly ImageSource[], options?: ClassifyOptions): Promise<ImageClassification[]>;
  async classify(
    images: ImageSource | readonly ImageSource[],
    options: ClassifyOptions = {},
  ): Promise<ImageClassification | ImageClassification[]> {
    const parsed = parseStrict(classifySchema(), options);
    if (isImageSource(images)) return (await this.#classifyAll([images as ImageSource], parsed))[0]!;
    if (Array.isArray(images)) return this.#classifyAll(images, parsed);
    throw new ResidualSkipError('INVALID_ARGUMENT', 'classify: expected an image or an array of images');
  }

  /** Prepares an image for the network: float32[1, channels, height, width]. Throws the same errors as `classify`. */
  prepare(image: ImageSource, { signal }: { signal?: AbortSignal } = {}): Promise<Tensor<'float32'>> {
    return this.prepareNamed(image, nameOf(image, 0), signal);
  }

  /** @internal */
  async prepareNamed(
    image: ImageSource,
    name: string,
    signal: AbortSignal | undefined,
  ): Promise<Tensor<'float32'>> {
    const { resizing: resize } = this.preprocessor;
    return this.prepareOwn(
      await toRawImage(image, name, { signal, maxPixels: this.maxPixels, resize }),
      name,
    );
  }

  /**
   * Prepares a decoded image that nobody else needs: its pixels are freed if they have all of their buffer.
   * @internal
   */
  async prepareOwn(image: RawImage, name: string): Promise<Tensor<'float32'>> {
    try {
      return await this.prepareRaw(image, name);
    } finally {
      discard(image.data);
    }
  }

  /** Prepares a decoded image for the network; `name` is its name in messages. */
  async prepareRaw(image: RawImage, name: string): Promise<Tensor<'float32'>> {
    const { data, shape } = await this.preprocessor.apply(image, name);
    const tensor = new Tensor('float32', data, shape);
    if (!this.preprocessorKnown && !this.#guessNoted) {
      this.#guessNoted = true;
      makeNote(this.onNote, guessOf(this.file, this.session.firstLayer, tensor));
    }
    return tensor;
  }

  /** @internal */
  note(message: string): void {
    makeNote(this.onNote, message);
  }

  /**
   * Prepares an image that is decoded at its own size, which the answer is about. Throws the same errors as `classify`.
   * @internal
   */
  async prepareWhole(source: ImageSource, name: string, signal?: AbortSignal): Promise<WholeImage> {
    const image = await toRawImage(source, name, { signal, maxPixels: this.maxPixels });
    const { width, height } = image;
    return { width, height, tensor: await this.prepareOwn(image, name) };
  }

  /** The feeds of `session.run` for prepared images. */
  feeds(tensor: Tensor): { readonly [input: string]: Tensor } {
    const { type, data, dims } = tensor;
    return { [this.input]: this.alone ? (new Tensor(type, data as never, dims.slice(1)) as Tensor) : tensor };
  }

  /** The scores of each item in the outputs of `session.run`. */
  scoresOf(outputs: { readonly [name: string]: Tensor }, items: number): Float32Array[] {
    const output = outputs[this.output]!;
    const classes = this.labels.length;
    if (isFloat(output) && output.size === items * classes) {
      const { data } = toFloat32(output);
      return Array.from({ length: items }, (_, i) => data.subarray(i * classes, (i + 1) * classes));
    }
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${this.name}: output '${this.output}' has ${output.size / items} values for each image, but there are ${classes} labels`,
    );
  }

  /**
   * The `count` most probable classes by an image's scores, most probable first; ties are in the order of their indices.
   * @throws ResidualSkipError INVALID_ARGUMENT when the model's output holds no class scores
   */
  predict(scores: Float32Array, count: number): Prediction[] {
    return predictions(this, scores, count, this.problem);
  }

  /** Releases the session once its current runs have ended. Idempotent. */
  release(): Promise<void> {
    return this.session.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #classifyAll(
    images: readonly ImageSource[],
    { topK = TOP_K, ...options }: ClassifyOptions,
  ): Promise<ImageClassification[]> {
    const results = await runImages(this, images, options, (outputs, items) => this.scoresOf(outputs, items));
    return results.map(({ answer, trace }) => {
      const top = this.predict(answer, topK);
      return { ...top[0]!, top, trace };
    });
  }
}
