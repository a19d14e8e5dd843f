import { join } from 'node:path';
import { z } from 'zod';
import { readJson } from '../data/files.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloatType, type Tensor } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { checkOptions, parseStrict, refuseMisspelt } from '../util/validation.js';
import { type answerOutput, VECTORS_OF_IMAGES } from './class-scores.js';
import { checkMaxPixels, takesImages } from './image-input.js';
import { ImageModel } from './image-model.js';
import type { ImageClassifierOptions } from './image-options.js';
import type { ImageSource } from './image-source.js';
import { type TextInput, textsOf } from './text-input.js';
import {
  resultsOf,
  TextModel,
  type TextModelOptions,
  type TextOutput,
  type TextRunOptions,
  textRunShape,
} from './text-model.js';
import { TextNetwork } from './text-network.js';
import { workShape } from './work.js';

/** How the vectors of a text's tokens become one; the names of sentence-transformers. */
const POOLINGS = ['cls', 'max', 'mean', 'mean_sqrt_len_tokens', 'weightedmean', 'lasttoken'] as const;
export type Pooling = (typeof POOLINGS)[number];

/** Options of `Embedder.from`: those of a session, of images, and what is made of the network's output. */
export interface EmbedderOptions
  extends TextModelOptions,
    Pick<ImageClassifierOptions, 'preprocessor' | 'maxPixels'> {
  /** When left out, as 1_Pooling/config.json beside the model says, or else the mean. */
  pooling?: Pooling | undefined;
  /** Whether vectors are scaled to the length 1. When left out, as modules.json beside the model says, or else not. */
  normalize?: boolean | undefined;
}

/** Options of `Embedder.embed`. */
export type EmbedOptions = TextRunOptions;

/** What an embedder takes: texts or images, as its network does. A string is a text for a network of texts, and the path of an image for one of images. */
export type EmbedInput = TextInput | ImageSource;

/** The answer for one text or image. */
export interface Embedding {
  readonly vector: Float32Array;
  /** What it ran and skipped; null unless `trace` was asked for. */
  readonly trace: ItemTrace | null;
}

const flag = late(() => z.boolean().optional());
const poolingSchema = late(() =>
  z.looseObject({
    pooling_mode_cls_token: flag(),
    pooling_mode_mean_tokens: flag(),
    pooling_mode_max_tokens: flag(),
    pooling_mode_mean_sqrt_len_tokens: flag(),
    pooling_mode_weightedmean_tokens: flag(),
    pooling_mode_lasttoken: flag(),
    include_prompt: flag(),
  }),
);
const modulesSchema = late(() => z.array(z.looseObject({ type: z.string() })));
const ownSchema = late(() =>
  z.object({
    pooling: z.enum(POOLINGS).optional(),
    normalize: z.boolean().optional(),
    onNote: workShape().onNote,
  }),
);
const OWN_OPTIONS = ['pooling', 'normalize', 'preprocessor', 'maxPixels', 'onNote'];
const embedSchema = late(() => z.strictObject(textRunShape()));

/** The key of 1_Pooling/config.json for each pooling. */
const KEYS: Readonly<Record<Pooling, keyof z.infer<ReturnType<typeof poolingSchema>> & string>> = {
  cls: 'pooling_mode_cls_token',
  mean: 'pooling_mode_mean_tokens',
  max: 'pooling_mode_max_tokens',
  mean_sqrt_len_tokens: 'pooling_mode_mean_sqrt_len_tokens',
  weightedmean: 'pooling_mode_weightedmean_tokens',
  lasttoken: 'pooling_mode_lasttoken',
};

/**
 * Texts or images to vectors. A network that takes tokens needs its tokenizer.json and the package `@huggingface/tokenizers`. Images are
 * prepared as ImageClassifier prepares them. Vectors of tokens, and of the positions of a map, are pooled and scaled as
 * sentence-transformers' files beside the model say.
 *
 * ```ts
 * const embedder = await Embedder.from('models/all-MiniLM-L6-v2');
 * const [a, b] = await embedder.embed(['a cat', 'a kitten']);
 * ```
 */
export class Embedder extends TextNetwork<TextModel | ImageModel> {
  private constructor(
    model: TextModel | ImageModel,
    /** Name of the output that is read. */
    readonly output: string,
    /** In the order in which their vectors are joined; null where the network pools. */
    readonly pooling: readonly Pooling[] | null,
    readonly normalizes: boolean,
  ) {
    super(model);
    model.session.readAnswersWith((outputs, feeds) =>
      this.#pooled(model.resultOf(outputs[this.output]!, feeds)),
    );
  }

  /**
   * Loads a model, with `tokenizer.json`, `tokenizer_config.json`, `1_Pooling/config.json` and `modules.json` beside it, or, if it takes
   * images, with `preprocessor_config.json`.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes neither tokens nor an image, or has no vectors, INVALID_DATA for a file
   * that can't be used, MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, options: EmbedderOptions = {}): Promise<Embedder> {
    checkOptions(options);
    const { pooling, normalize, preprocessor, maxPixels, onNote, ...sessionOptions } = options;
    refuseMisspelt(sessionOptions, OWN_OPTIONS, 'options', 'INVALID_ARGUMENT');
    const own = parseStrict(ownSchema(), { pooling, normalize, onNote });
    checkMaxPixels(maxPixels);
    const files = await findModel(path);
    const session = await InferenceSession.create(path, sessionOptions);
    const ofImages = takesImages(session.inputMetadata, files.name);
    const model = ofImages
      ? await ImageModel.over(session, files, { preprocessor, maxPixels, onNote }, embeddingOutput)
      : await TextModel.over(session, files, onNote);
    try {
      if (preprocessor && !ofImages) {
        throw new ResidualSkipError(
          'INVALID_ARGUMENT',
          `options.preprocessor: ${path} is a network of texts`,
        );
      }
      return await Embedder.over(model, own);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /** @internal */
  static async over(
    model: TextModel | ImageModel,
    own: Pick<EmbedderOptions, 'pooling' | 'normalize'> = {},
  ): Promise<Embedder> {
    const { files, session } = model;
    const isText = model instanceof TextModel;
    const output = vectorOutput(session.outputMetadata, files.name, isText);
    const pools = output.shape.length > 2;
    const found = pools && !own.pooling ? await poolingBeside(model) : undefined;
    const modulesFile = join(files.folder, 'modules.json');
    const modules = await readJson(modulesFile, modulesSchema());
    if (pools) checkModules(modules ?? [], modulesFile);
    const normalizes = own.normalize ?? modules?.some(({ type }) => type.endsWith('.Normalize')) ?? false;
    const poolings = own.pooling ? [own.pooling] : (found ?? ['mean' as const]);
    const pooling = pools ? poolings : null;
    if (isText) await model.notePreparation(undefined, pooling);
    return new Embedder(model, output.name, pooling, normalizes);
  }

  /**
   * The vector of one text or image, or of several. Each text runs at its own length; longer ones than the network takes are cut. The answers
   * are in the order of the items.
   * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (an image can't be read), ABORTED, SESSION_RELEASED, and the errors of a policy
   * that can't be used
   */
  embed(item: EmbedInput, options?: EmbedOptions): Promise<Embedding>;
  embed(items: readonly EmbedInput[], options?: EmbedOptions): Promise<Embedding[]>;
  async embed(
    items: EmbedInput | readonly EmbedInput[],
    options: EmbedOptions = {},
  ): Promise<Embedding | Embedding[]> {
    const parsed = parseStrict(embedSchema(), options);
    const { one, results } = await this.#run(items, parsed);
    const answers = results.map((result) => ({ vector: this.#pooled(result), trace: result.trace }));
    return one ? answers[0]! : answers;
  }

  async #run(items: unknown, options: EmbedOptions) {
    const { model, output } = this;
    if (model instanceof TextModel) {
      const { list, one } = textsOf('embed', items);
      return { one, results: await model.run(list, output, options) };
    }
    const { list, one } = model.listOf(items);
    return { one, results: await model.run(list, output, options) };
  }

  /**
   * A hash of all that decides which tokens a text becomes, and how their vectors are pooled, or what becomes of an image, as a policy keeps
   * it.
   * @internal
   */
  async preparation(): Promise<string> {
    return this.model.preparation(this.pooling);
  }

  /** The vector of a prepared text or image in the outputs of `session.run`. */
  vectorOf(outputs: TensorMap, prepared: Tensor): Float32Array {
    const output = outputs[this.output]!;
    const { model } = this;
    return this.#pooled(
      model instanceof TextModel
        ? resultsOf(output, [prepared as Tensor<'int32'>])[0]!
        : model.resultOf(output),
    );
  }

  #pooled(result: TextOutput): Float32Array {
    const parts = this.pooling?.map((pooling) => pooled(result, pooling)) ?? [Float64Array.from(result.data)];
    const vector = Float64Array.from(parts.flatMap((part) => [...part]));
    // As torch.nn.functional.normalize: a length of 0 stays.
    const length = this.normalizes ? Math.max(Math.hypot(...vector), 1e-12) : 1;
    return Float32Array.from(vector, (x) => x / length);
  }
}

/** Pools the vectors of the text's own tokens; those that fill it up to a fixed length don't count. */
function pooled({ data, dims, tokens, first }: TextOutput, pooling: Pooling): Float64Array {
  const width = dims.at(-1)!;
  const result = new Float64Array(width);
  for (let c = 0; c < width; c++) {
    const at = (token: number) => data[(first + token) * width + c]!;
    let sum = 0;
    let weights = 0;
    let largest = Number.NEGATIVE_INFINITY;
    for (let token = 0; token < tokens; token++) {
      const weight = pooling === 'weightedmean' ? token + 1 : 1;
      sum += weight * at(token);
      weights += weight;
      largest = Math.max(largest, at(token));
    }
    if (pooling === 'cls') result[c] = at(0);
    else if (pooling === 'lasttoken') result[c] = at(tokens - 1);
    else if (pooling === 'max') result[c] = largest;
    else result[c] = sum / (pooling === 'mean_sqrt_len_tokens' ? Math.sqrt(weights) : weights);
  }
  return result;
}

/** The modules of sentence-transformers that are computed here, or have no effect on a trained network. */
const MODULES = ['Transformer', 'Pooling', 'Normalize', 'Dropout'];

/** @throws ResidualSkipError INVALID_DATA if a further module, such as Dense, makes the vectors of a network that gives those of tokens */
function checkModules(modules: z.infer<ReturnType<typeof modulesSchema>>, file: string): void {
  const other = modules.find(({ type }) => !MODULES.includes(type.split('.').at(-1)!));
  if (!other) return;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `file ${file}: it has the module ${other.type}, which isn't in the network; export both together, with the output sentence_embedding`,
  );
}

async function poolingBeside(model: TextModel | ImageModel): Promise<Pooling[] | undefined> {
  const { files } = model;
  const file = join(files.folder, '1_Pooling', 'config.json');
  const config = await readJson(file, poolingSchema());
  if (!config) return undefined;
  if (config.include_prompt === false && model instanceof TextModel && model.prompt !== '') {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `file ${file}: include_prompt is false, but the tokens of the prompt can't be left out; give the option pooling to pool all tokens`,
    );
  }
  const asked = POOLINGS.filter((pooling) => config[KEYS[pooling]] === true);
  if (asked.length > 0) return asked;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `file ${file}: it asks for no pooling that is known; use ${POOLINGS.join(', ')}`,
  );
}

/** One that is named as vectors are, or else the first output with a vector for each item, token or position. */
function vectorOutput(
  outputs: readonly TensorMetadata[],
  model: string,
  isText: boolean,
): Pick<TensorMetadata, 'name' | 'shape'> {
  const fitting = outputs.filter(
    ({ type, shape }) => isFloatType(type) && shape.length >= 2 && shape.length <= (isText ? 3 : 4),
  );
  const names = isText ? ['sentence_embedding'] : VECTORS_OF_IMAGES;
  const named = names.flatMap((known) => fitting.filter(({ name }) => name === known));
  const chosen = named[0] ?? fitting[0];
  if (chosen) return chosen;
  const forms = isText
    ? '[batch, tokens, width] or [batch, width]'
    : '[batch, width], [batch, tokens, width] or [batch, channels, height, width]';
  throw new ResidualSkipError('INVALID_ARGUMENT', `${model}: it has no output of floats ${forms}`);
}

/** The same of a network of images. It has no classes, whatever labels are beside it. */
const embeddingOutput: typeof answerOutput = (outputs, _labels, model) => ({
  output: vectorOutput(outputs, model, false).name,
  classes: undefined,
});
