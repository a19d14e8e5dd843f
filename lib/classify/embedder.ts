import { join } from 'node:path';
import { z } from 'zod';
import { readJson } from '../data/files.js';
import type { ModelFiles } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloatType, type Tensor } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { checkOptions, parseStrict } from '../util/validation.js';
import {
  resultsOf,
  type TextInput,
  TextModel,
  type TextModelOptions,
  TextNetwork,
  type TextOutput,
  type TextRunOptions,
  textRunShape,
  textsOf,
} from './text-model.js';

/** How the vectors of a text's tokens become one; the names of sentence-transformers. */
const POOLINGS = ['cls', 'max', 'mean', 'mean_sqrt_len_tokens', 'weightedmean', 'lasttoken'] as const;
export type Pooling = (typeof POOLINGS)[number];

/** Options of `Embedder.from`: those of a session, and what is made of the network's output. */
export interface EmbedderOptions extends TextModelOptions {
  /** When left out, as 1_Pooling/config.json beside the model says, or else the mean. */
  pooling?: Pooling | undefined;
  /** Whether vectors are scaled to the length 1. When left out, as modules.json beside the model says, or else not. */
  normalize?: boolean | undefined;
}

/** Options of `Embedder.embed`. */
export type EmbedOptions = TextRunOptions;

/** The answer for one text. */
export interface Embedding {
  readonly vector: Float32Array;
  /** What the text ran and skipped; null unless `trace` was asked for. */
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
  }),
);
const modulesSchema = late(() => z.array(z.looseObject({ type: z.string() })));
const ownSchema = late(() =>
  z.object({ pooling: z.enum(POOLINGS).optional(), normalize: z.boolean().optional() }),
);
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
 * Texts to vectors: a network that takes tokens and has a vector for each token or text, its tokenizer.json, and pooling and
 * normalisation as sentence-transformers' files beside it say. Needs the package `@huggingface/tokenizers`.
 *
 * ```ts
 * const embedder = await Embedder.from('models/all-MiniLM-L6-v2');
 * const [a, b] = await embedder.embed(['a cat', 'a kitten']);
 * ```
 */
export class Embedder extends TextNetwork {
  private constructor(
    model: TextModel,
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
   * Loads a model, with `tokenizer.json`, `tokenizer_config.json`, `1_Pooling/config.json` and `modules.json` beside it.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no tokens or has no vectors, INVALID_DATA for a file that can't be
   * used, MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, options: EmbedderOptions = {}): Promise<Embedder> {
    checkOptions(options);
    const { pooling, normalize, ...sessionOptions } = options;
    const own = parseStrict(ownSchema(), { pooling, normalize });
    return TextModel.use(path, sessionOptions, (model) => Embedder.over(model, own));
  }

  /** @internal */
  static async over(
    model: TextModel,
    own: Pick<EmbedderOptions, 'pooling' | 'normalize'> = {},
  ): Promise<Embedder> {
    const { files, session } = model;
    const output = vectorOutput(session.outputMetadata, files.name);
    const pools = output.shape.length === 3;
    const found = pools && !own.pooling ? await poolingBeside(files) : undefined;
    const modulesFile = join(files.folder, 'modules.json');
    const modules = await readJson(modulesFile, modulesSchema());
    if (pools) checkModules(modules ?? [], modulesFile);
    const normalizes = own.normalize ?? modules?.some(({ type }) => type.endsWith('.Normalize')) ?? false;
    const poolings = own.pooling ? [own.pooling] : (found ?? ['mean' as const]);
    const pooling = pools ? poolings : null;
    await model.notePreparation(undefined, pooling);
    return new Embedder(model, output.name, pooling, normalizes);
  }

  /**
   * The vector of one text, or of several. Each runs at its own length; longer ones than the network takes are cut. The answers are in
   * the order of the texts.
   * @throws ResidualSkipError INVALID_ARGUMENT, ABORTED, SESSION_RELEASED, and the errors of a policy that can't be used
   */
  embed(text: TextInput, options?: EmbedOptions): Promise<Embedding>;
  embed(texts: readonly TextInput[], options?: EmbedOptions): Promise<Embedding[]>;
  async embed(
    texts: TextInput | readonly TextInput[],
    options: EmbedOptions = {},
  ): Promise<Embedding | Embedding[]> {
    const parsed = parseStrict(embedSchema(), options);
    const { list, one } = textsOf('embed', texts);
    const results = await this.model.run(list, this.output, parsed);
    const answers = results.map((result) => ({ vector: this.#pooled(result), trace: result.trace }));
    return one ? answers[0]! : answers;
  }

  /**
   * A hash of all that decides which tokens a text becomes, and how their vectors are pooled, as a policy keeps it.
   * @internal
   */
  preparation(): Promise<string> {
    return this.model.preparation(this.pooling);
  }

  /** The vector of a prepared text in the outputs of `session.run`. */
  vectorOf(outputs: TensorMap, prepared: Tensor<'int32'>): Float32Array {
    return this.#pooled(resultsOf(outputs[this.output]!, [prepared])[0]!);
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
function pooled({ data, dims, tokens }: TextOutput, pooling: Pooling): Float64Array {
  const width = dims.at(-1)!;
  const result = new Float64Array(width);
  for (let c = 0; c < width; c++) {
    const at = (token: number) => data[token * width + c]!;
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

async function poolingBeside(files: ModelFiles): Promise<Pooling[] | undefined> {
  const file = join(files.folder, '1_Pooling', 'config.json');
  const config = await readJson(file, poolingSchema());
  if (!config) return undefined;
  const asked = POOLINGS.filter((pooling) => config[KEYS[pooling]] === true);
  if (asked.length > 0) return asked;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `file ${file}: it asks for no pooling that is known; use ${POOLINGS.join(', ')}`,
  );
}

/** `sentence_embedding`, or else the first output with a vector for each text or token. */
function vectorOutput(outputs: readonly TensorMetadata[], model: string): TensorMetadata {
  const fitting = outputs.filter(
    ({ type, shape }) => isFloatType(type) && (shape.length === 2 || shape.length === 3),
  );
  const chosen = fitting.find(({ name }) => name === 'sentence_embedding') ?? fitting[0];
  if (chosen) return chosen;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${model}: it has no output of floats [batch, tokens, width] or [batch, width]`,
  );
}
