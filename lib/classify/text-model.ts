/** What text classifiers and embedders run on: a session, a tokenizer, and runs of texts. */
import { z } from 'zod';
import { findModel, type ModelFiles } from '../data/model-files.js';
import { TextTokenizer, TOKEN_INPUTS, tokensId } from '../data/tokenizer.js';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { SessionOptions } from '../session/options.js';
import { InferenceSession } from '../session/session.js';
import type { Stopped } from '../session/stopped-items.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloat, Tensor, toFloat32 } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { append } from '../util/maps.js';
import { parseStrict } from '../util/validation.js';
import { notePreparation } from './policy-doubt.js';
import type { TextInput } from './text-input.js';
import { type WorkOptions, workShape } from './work.js';

/** Options of a network of texts: those of a session, and one for notes. */
export interface TextModelOptions extends SessionOptions {
  /**
   * Called with notes for the caller, which are not errors: that texts are prepared otherwise than those that certified the policy. A note
   * is a process warning when left out.
   */
  onNote?: WorkOptions['onNote'];
}

/** Options of every run of texts. */
export interface TextRunOptions {
  /** Also return what each text ran and skipped. */
  trace?: boolean | undefined;
  /** Used instead of the session's policy. */
  policy?: PolicySource | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | undefined;
}

const notesSchema = late(() => z.object({ onNote: workShape().onNote }));

export const textRunShape = late(() => ({
  trace: z.boolean().optional(),
  policy: z.custom<PolicySource>().optional(),
  signal: z.instanceof(AbortSignal).optional(),
}));

/** What a run of several texts of one length gave one of them. */
export interface TextResult {
  /** The elements of the output that belong to the text. */
  readonly data: Float32Array;
  /** Their shape, without the batch. */
  readonly dims: readonly number[];
  /** Tokens of the text, and the number of the first of them: others fill it up. */
  readonly tokens: number;
  readonly first: number;
  readonly trace: ItemTrace | null;
  /** Of the text in full; null without a trace. */
  readonly multiplyAdds: number | null;
}

/** What an output holds of a text. */
export type TextOutput = Omit<TextResult, 'trace' | 'multiplyAdds'>;

/** Most texts in one run. */
const BATCH = 16;
/** Runs under way: workers go from one to the next without a turn of the event loop in between. */
const UNDER_WAY = 8;

type Role = (typeof TOKEN_INPUTS)[number];

export class TextModel {
  private constructor(
    readonly files: ModelFiles,
    readonly session: InferenceSession,
    private readonly tokenizer: TextTokenizer,
    private readonly inputs: readonly { readonly name: Role; readonly type: 'int64' | 'int32' }[],
    /** Tokens that every text must have; undefined where the network takes any number. */
    private readonly length: number | undefined,
    private readonly onNote: WorkOptions['onNote'],
  ) {}

  /**
   * @param path folder with the model and its tokenizer.json, or the ONNX file there
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no tokens, INVALID_DATA for a file that can't be used,
   * MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, { onNote, ...options }: TextModelOptions): Promise<TextModel> {
    parseStrict(notesSchema(), { onNote }, { subject: 'options' });
    const files = await findModel(path);
    return TextModel.over(await InferenceSession.create(path, options), files, onNote);
  }

  /**
   * Over a session, which is released if this fails.
   * @throws ResidualSkipError as `from`
   */
  static async over(
    session: InferenceSession,
    files: ModelFiles,
    onNote: WorkOptions['onNote'],
  ): Promise<TextModel> {
    try {
      const inputs = session.inputMetadata.map((input) => tokenInput(input, files.name));
      const ids = session.inputMetadata.find(({ name }) => name === 'input_ids');
      if (!ids) throw notText(files.name, session.inputMetadata);
      const tokenizer = await TextTokenizer.load(files.folder);
      const [, length] = ids.shape;
      return new TextModel(
        files,
        session,
        tokenizer,
        inputs,
        typeof length === 'number' ? length : undefined,
        onNote,
      );
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /**
   * Loads a model and passes it to `make`; releases it if `make` throws.
   * @throws ResidualSkipError as `from`, and what `make` throws
   */
  static async use<T>(
    path: string,
    options: TextModelOptions,
    make: (model: TextModel) => Promise<T>,
  ): Promise<T> {
    const model = await TextModel.from(path, options);
    try {
      return await make(model);
    } catch (error) {
      await model.session.release();
      throw error;
    }
  }

  /**
   * A hash of all that decides which tokens a text becomes, as a policy keeps it.
   * @param pooling what becomes of the tokens' vectors, if the network doesn't say it
   */
  preparation(pooling?: readonly string[] | null): Promise<string> {
    return tokensId(this.files.folder, pooling ?? []);
  }

  /** Notes what differs from what the session's policy says of the texts that certified it. */
  notePreparation(labels: readonly string[] | undefined, pooling?: readonly string[] | null): Promise<void> {
    const id = () => this.preparation(pooling);
    return notePreparation(this.session.ownPolicy, { what: 'texts', id, labels }, this.onNote);
  }

  /** The tokens of a text: int32 [3, tokens], rows of ids, of 1 for each token that isn't filled up, and of segments. */
  prepare(text: TextInput): Tensor<'int32'> {
    const { text: first, pair } = typeof text === 'string' ? { text, pair: undefined } : text;
    const { ids, types } = this.tokenizer.encode(first, pair, this.#limit());
    const length = this.length ?? ids.length;
    const from = this.tokenizer.padsLeft ? length - ids.length : 0;
    const rows = new Int32Array(TOKEN_INPUTS.length * length);
    rows.fill(this.tokenizer.padding, 0, length);
    rows.set(ids, from);
    rows.fill(1, length + from, length + from + ids.length);
    rows.set(types, 2 * length + from);
    return new Tensor('int32', rows, [TOKEN_INPUTS.length, length]);
  }

  /** The feeds of `session.run` for prepared texts of one length. */
  feeds(prepared: readonly Tensor<'int32'>[]): TensorMap {
    const length = prepared[0]!.dims[1]!;
    const size = prepared.length * length;
    const dims = [prepared.length, length];
    return Object.fromEntries(
      this.inputs.map(({ name, type }) => {
        const from = TOKEN_INPUTS.indexOf(name) * length;
        // Numbers of 64 bits as pairs of 32, the lower first: a bigint for each would take thirty times as long.
        const wide = type === 'int64';
        const data = new Int32Array(wide ? 2 * size : size);
        for (const [i, text] of prepared.entries()) {
          const row = text.data.subarray(from, from + length);
          if (!wide) data.set(row, i * length);
          else for (let k = 0; k < length; k++) data[2 * (i * length + k)] = row[k]!;
        }
        return [
          name,
          wide ? new Tensor('int64', new BigInt64Array(data.buffer), dims) : new Tensor('int32', data, dims),
        ];
      }),
    );
  }

  /** A text's part of an output, by its feeds: a batch of one. Without marks among them, what is padding at its side fills it up. */
  resultOf(output: Tensor, feeds: TensorMap): TextOutput {
    const { data, dims } = isFloat(output) ? toFloat32(output) : output;
    const { attention_mask: marks, input_ids: ids } = feeds;
    const list = Array.from((marks ?? ids)!.data, Number);
    const { padding, padsLeft } = this.tokenizer;
    const isOwn = (value: number) => (marks ? value === 1 : this.length === undefined || value !== padding);
    const first = marks || padsLeft ? Math.max(0, list.findIndex(isOwn)) : 0;
    const end = marks || !padsLeft ? list.findLastIndex(isOwn) + 1 : list.length;
    return { data: data as Float32Array, dims: dims.slice(1), tokens: end - first, first };
  }

  /** What the files beside the model put in front of each single text. */
  get prompt(): string {
    return this.tokenizer.prompt;
  }

  /** Runs each text at its own length, several of one length together. The results are in the order of the texts. */
  run(texts: readonly TextInput[], output: string, options: TextRunOptions): Promise<TextResult[]> {
    return this.runPrepared(
      texts.map((text) => this.prepare(text)),
      output,
      options,
    );
  }

  /**
   * The same, for prepared texts.
   * @param of which of stopped items the texts are: those go on from where they stopped
   */
  async runPrepared(
    prepared: readonly Tensor<'int32'>[],
    output: string,
    options: TextRunOptions,
    of?: Stopped,
  ): Promise<TextResult[]> {
    const { trace: traced, ...rest } = options;
    const fetches = [output];
    const run = async (feeds: TensorMap, group: readonly number[]) => {
      const own = { of: of && { stopped: of.stopped, items: group.map((i) => of.items[i]!) } };
      if (traced) return this.session.runOwnTraced(feeds, fetches, rest, own);
      return { outputs: await this.session.runOwn(feeds, fetches, rest, own), trace: null };
    };
    const results: TextResult[] = [];
    const groups = this.#groups(prepared.map(({ dims }) => dims[1]!));
    const runGroup = async (group: readonly number[]) => {
      const those = group.map((i) => prepared[i]!);
      const { outputs, trace } = await run(this.feeds(those), group);
      for (const [k, result] of resultsOf(outputs[output]!, those).entries()) {
        results[group[k]!] = {
          ...result,
          trace: trace?.items[k] ?? null,
          multiplyAdds: trace?.multiplyAdds ?? null,
        };
      }
    };
    let next = 0;
    const runSome = async () => {
      try {
        while (next < groups.length) await runGroup(groups[next++]!);
      } catch (error) {
        next = groups.length;
        throw error;
      }
    };
    await Promise.all(Array.from({ length: UNDER_WAY }, runSome));
    return results;
  }

  #limit(): number | undefined {
    const limits = [this.tokenizer.limit, this.length].filter((limit) => limit !== undefined);
    return limits.length > 0 ? Math.min(...limits) : undefined;
  }

  /** Indices of the texts that run together. */
  #groups(lengths: readonly number[]): number[][] {
    const max = this.session.model.batching === 'item' ? BATCH : 1;
    const byLength = new Map<number, number[]>();
    for (const [i, length] of lengths.entries()) append(byLength, length, i);
    return [...byLength.values()].flatMap((all) =>
      Array.from({ length: Math.ceil(all.length / max) }, (_, k) => all.slice(k * max, (k + 1) * max)),
    );
  }
}

/** Each text's part of an output. */
export function resultsOf(output: Tensor, prepared: readonly Tensor<'int32'>[]): TextOutput[] {
  const { data, dims } = isFloat(output) ? toFloat32(output) : output;
  const size = data.length / prepared.length;
  return prepared.map((text, i) => ({
    data: (data as Float32Array).slice(i * size, (i + 1) * size),
    dims: dims.slice(1),
    ...tokensOf(text),
  }));
}

/** Tokens of a prepared text, without those that fill it up. */
function tokensOf({ data, dims }: Tensor<'int32'>): Pick<TextOutput, 'tokens' | 'first'> {
  const length = dims[1]!;
  const marks = data.subarray(length, 2 * length);
  return { tokens: marks.reduce((sum, mark) => sum + mark, 0), first: Math.max(0, marks.indexOf(1)) };
}

function tokenInput({ name, type, shape }: TensorMetadata, model: string) {
  const role = TOKEN_INPUTS.find((known) => known === name);
  if (role && shape.length === 2 && (type === 'int64' || type === 'int32'))
    return { name: role, type } as const;
  throw notText(model, [{ name, type, shape }]);
}

function notText(model: string, inputs: readonly Pick<TensorMetadata, 'name' | 'type' | 'shape'>[]) {
  const found = inputs.map(({ name, type, shape }) => `${name}: ${type}[${shape.join(', ')}]`).join('; ');
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${model}: it takes ${found || 'nothing'}; texts need input_ids and at most attention_mask and token_type_ids, integers ` +
      '[batch, tokens]',
  );
}
