/** What text classifiers and embedders share: a session, a tokenizer, and runs of texts. */
import { z } from 'zod';
import { findModel, type ModelFiles } from '../data/model-files.js';
import { TextTokenizer } from '../data/tokenizer.js';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { SessionOptions } from '../session/options.js';
import { InferenceSession } from '../session/session.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { ItemTrace } from '../skip/trace.js';
import { Tensor } from '../tensor.js';

/** Options of every run of texts. */
export interface TextRunOptions {
  /** Also return what each text ran and skipped. */
  trace?: boolean | undefined;
  /** Used instead of the session's policy. */
  policy?: PolicySource | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | undefined;
}

export const textRunShape = {
  trace: z.boolean().optional(),
  policy: z.custom<PolicySource>().optional(),
  signal: z.instanceof(AbortSignal).optional(),
};

/** What a run of several texts of one length gave one of them. */
export interface TextResult {
  /** The elements of the output that belong to the text. */
  readonly data: Float32Array;
  /** Their shape, without the batch. */
  readonly dims: readonly number[];
  /** Tokens of the text. */
  readonly tokens: number;
  readonly trace: ItemTrace | null;
}

/** Most texts in one run. */
const BATCH = 16;

const ROLES = ['input_ids', 'attention_mask', 'token_type_ids'] as const;
type Role = (typeof ROLES)[number];

export class TextModel {
  private constructor(
    readonly files: ModelFiles,
    readonly session: InferenceSession,
    private readonly tokenizer: TextTokenizer,
    private readonly inputs: readonly { readonly name: Role; readonly type: 'int64' | 'int32' }[],
    /** Tokens that every text must have; undefined where the network takes any number. */
    private readonly length: number | undefined,
  ) {}

  /**
   * @param path folder with the model and its tokenizer.json, or the ONNX file there
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no tokens, INVALID_DATA for a file that can't be used,
   * MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, options: SessionOptions): Promise<TextModel> {
    const files = await findModel(path);
    const tokenizer = await TextTokenizer.load(files.folder);
    const session = await InferenceSession.create(files.model, options);
    try {
      const inputs = session.inputMetadata.map((input) => tokenInput(input, files.name));
      const ids = session.inputMetadata.find(({ name }) => name === 'input_ids');
      if (!ids) throw notText(files.name, session.inputMetadata);
      const [, length] = ids.shape;
      return new TextModel(
        files,
        session,
        tokenizer,
        inputs,
        typeof length === 'number' ? length : undefined,
      );
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /** Runs each text at its own length, several of one length together. The results are in the order of the texts. */
  async run(texts: readonly string[], output: string, options: TextRunOptions): Promise<TextResult[]> {
    const { trace: traced, ...rest } = options;
    const encoded = texts.map((text) => this.tokenizer.encode(text, this.#limit()));
    const results: TextResult[] = [];
    for (const group of this.#groups(encoded.map(({ ids }) => ids.length))) {
      const feeds = this.#feeds(group.map((i) => encoded[i]!));
      const { outputs, trace } = traced
        ? await this.session.runTraced(feeds, [output], rest)
        : { outputs: await this.session.run(feeds, [output], rest), trace: null };
      const { data, dims } = outputs[output]!;
      const size = data.length / group.length;
      for (const [item, i] of group.entries()) {
        results[i] = {
          data: (data as Float32Array).slice(item * size, (item + 1) * size),
          dims: dims.slice(1),
          tokens: encoded[i]!.ids.length,
          trace: trace?.items[item] ?? null,
        };
      }
    }
    return results;
  }

  #limit(): number | undefined {
    const limits = [this.tokenizer.limit, this.length].filter((limit) => limit !== undefined);
    return limits.length > 0 ? Math.min(...limits) : undefined;
  }

  /** Indices of the texts that run together. */
  #groups(lengths: readonly number[]): number[][] {
    const most = this.session.model.batching === 'item' ? BATCH : 1;
    const byLength = new Map<number, number[]>();
    for (const [i, own] of lengths.entries()) {
      const length = this.length ?? own;
      byLength.set(length, [...(byLength.get(length) ?? []), i]);
    }
    return [...byLength.values()].flatMap((all) =>
      Array.from({ length: Math.ceil(all.length / most) }, (_, k) => all.slice(k * most, (k + 1) * most)),
    );
  }

  #feeds(texts: readonly { ids: readonly number[]; types: readonly number[] }[]): Record<string, Tensor> {
    const length = this.length ?? texts[0]!.ids.length;
    const filled = (list: readonly number[], filler: number) =>
      Array.from({ length }, (_, i) => list[i] ?? filler);
    const rows: Record<Role, number[]> = {
      input_ids: texts.flatMap(({ ids }) => filled(ids, this.tokenizer.padding)),
      attention_mask: texts.flatMap(({ ids }) =>
        filled(
          ids.map(() => 1),
          0,
        ),
      ),
      token_type_ids: texts.flatMap(({ types }) => filled(types, 0)),
    };
    const dims = [texts.length, length];
    return Object.fromEntries(
      this.inputs.map(({ name, type }) => {
        const row = rows[name];
        const tensor =
          type === 'int64'
            ? new Tensor('int64', BigInt64Array.from(row, BigInt), dims)
            : new Tensor('int32', Int32Array.from(row), dims);
        return [name, tensor as Tensor];
      }),
    );
  }
}

function tokenInput({ name, type, shape }: TensorMetadata, model: string) {
  const role = ROLES.find((known) => known === name);
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

/** The texts of a call, and whether it had one or several. */
export function textsOf(
  what: string,
  texts: unknown,
): { readonly list: readonly string[]; readonly one: boolean } {
  const list = typeof texts === 'string' ? [texts] : texts;
  if (Array.isArray(list) && list.every((text) => typeof text === 'string')) {
    return { list, one: typeof texts === 'string' };
  }
  throw new ResidualSkipError('INVALID_ARGUMENT', `${what}: expected a text or an array of texts`);
}
