/** Texts to tokens, by Hugging Face's files. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { late } from '../util/late.js';
import { requirePackage } from '../util/packages.js';
import { readJson } from './files.js';

type Library = typeof import('@huggingface/tokenizers', { with: { 'resolution-mode': 'require' }});
type Tokenizer = InstanceType<Library['Tokenizer']>;

/** What the library's own types leave open. */
interface Encoding {
  readonly ids: readonly number[];
  readonly token_type_ids: readonly number[];
}

/** Loads the library, an optional peer, when it is first needed, as `loadSharp` in image.ts. */
function loadLibrary(): Library {
  try {
    return requirePackage('@huggingface/tokenizers');
  } catch (cause) {
    throw new ResidualSkipError(
      'MISSING_DEPENDENCY',
      'texts: splitting them into tokens needs the package "@huggingface/tokenizers", which can\'t be loaded here; install it with ' +
        '"npm install @huggingface/tokenizers"',
      { cause },
    );
  }
}

const specialToken = late(() => z.union([z.string(), z.looseObject({ content: z.string() })]).nullish());
const tokenizerSchema = late(() =>
  z.looseObject({
    model: z.looseObject({}),
    truncation: z.looseObject({ max_length: z.int().positive(), direction: z.string().optional() }).nullish(),
    padding: z.looseObject({ pad_id: z.int().nonnegative(), direction: z.string().optional() }).nullish(),
  }),
);
const configSchema = late(() =>
  z.looseObject({
    model_max_length: z.number().positive().nullish(),
    pad_token: specialToken(),
    truncation_side: z.enum(['left', 'right']).nullish(),
    padding_side: z.enum(['left', 'right']).nullish(),
  }),
);
const sentenceSchema = late(() =>
  z.looseObject({ max_seq_length: z.int().positive().nullish(), do_lower_case: z.boolean().nullish() }),
);
const promptsSchema = late(() =>
  z.looseObject({
    prompts: z.record(z.string(), z.string()).nullish(),
    default_prompt_name: z.string().nullish(),
  }),
);
const modelSchema = late(() => z.looseObject({ max_position_embeddings: z.int().positive().nullish() }));

/** Configurations without a limit have 1e30 there. */
const NO_LIMIT = 1e9;

/** Inputs of networks of texts, each [batch, tokens]. */
export const TOKEN_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'] as const;

/** What sentence-transformers makes of a text before it is split. */
interface Beginning {
  readonly trims: boolean;
  readonly lowers: boolean;
  /** Put in front of each single text. */
  readonly prompt: string;
}

/** The files beside a model that say how texts become tokens, and how many. */
async function readConfiguration(folder: string) {
  const json = await readJson(join(folder, 'tokenizer.json'), tokenizerSchema());
  const config = (await readJson(join(folder, 'tokenizer_config.json'), configSchema())) ?? {};
  const sentence = await readJson(join(folder, 'sentence_bert_config.json'), sentenceSchema());
  const promptsFile = join(folder, 'config_sentence_transformers.json');
  const { prompts, default_prompt_name: prompt } = (await readJson(promptsFile, promptsSchema())) ?? {};
  const model = await readJson(join(folder, 'config.json'), modelSchema());
  const limits = [
    // sentence-transformers puts it in place of the tokenizer's own.
    sentence?.max_seq_length ?? json?.truncation?.max_length,
    config.model_max_length,
    model?.max_position_embeddings,
  ].filter((limit) => typeof limit === 'number' && limit < NO_LIMIT) as number[];
  if (prompt && prompts?.[prompt] === undefined) {
    const why = `default_prompt_name is "${prompt}", which is none of the prompts`;
    throw new ResidualSkipError('INVALID_DATA', `file ${promptsFile}: ${why}`);
  }
  const first: Beginning = {
    trims: sentence !== undefined,
    lowers: sentence?.do_lower_case ?? false,
    prompt: prompt ? prompts![prompt]! : '',
  };
  const keepsEnd = (config.truncation_side ?? json?.truncation?.direction?.toLowerCase()) === 'left';
  const padsLeft = (config.padding_side ?? json?.padding?.direction?.toLowerCase()) === 'left';
  const limit = limits.length > 0 ? Math.min(...limits) : undefined;
  return { json, config, limit, first, keepsEnd, padsLeft };
}

/**
 * Most tokens of a text, special ones included, by the files beside a model; undefined if they name no limit.
 * @throws ResidualSkipError INVALID_DATA naming the file and its field
 */
export async function tokenLimit(folder: string): Promise<number | undefined> {
  return (await readConfiguration(folder)).limit;
}

/** Of what `TextTokenizer` does with these files; a change of the tokens that it gives is another version. */
const VERSION = 1;

/**
 * A hash of all that decides which tokens a text becomes: the contents of the files beside a model, and `VERSION`. Sixteen hexadecimal
 * digits.
 * @param folder with a tokenizer.json that was loaded
 * @param further what else decides what is made of the text
 * @throws ResidualSkipError INVALID_DATA naming the file and its field
 */
export async function tokensId(folder: string, further: readonly string[] = []): Promise<string> {
  const { json, config, limit, first, keepsEnd, padsLeft } = await readConfiguration(folder);
  // Nothing is decoded, and truncation is in the limit.
  const { decoder: _, truncation: __, ...deciding } = json!;
  const own = [...(first.trims ? [first] : first.prompt ? [first.prompt] : []), ...(keepsEnd ? ['end'] : [])];
  if (padsLeft) own.push('padded left');
  const made = JSON.stringify([VERSION, deciding, config, limit ?? null, ...own, ...further]);
  return createHash('sha256').update(made).digest('hex').slice(0, 16);
}

/** The tokens of one text. */
export interface Encoded {
  readonly ids: readonly number[];
  /** Segment of each token; 0 for a single text. */
  readonly types: readonly number[];
}

/** Any text. */
const WORD = 'word';

export class TextTokenizer {
  /** Numbers of special tokens: those before a text, and all. */
  #around: { readonly before: number; readonly count: number; readonly known: boolean } | undefined;

  private constructor(
    private readonly tokenizer: Tokenizer,
    /** Most tokens of a text, special ones included; undefined if there is no limit. */
    readonly limit: number | undefined,
    /** Fills texts up for networks of a fixed length. */
    readonly padding: number,
    /** In front of them, otherwise behind them. */
    readonly padsLeft: boolean,
    private readonly first: Beginning,
    /** Of texts that are too long, the last tokens are kept. */
    private readonly keepsEnd: boolean,
  ) {}

  /**
   * Reads `tokenizer.json` and what is beside it.
   * @throws ResidualSkipError INVALID_DATA when there is none or it can't be used, MISSING_DEPENDENCY
   */
  static async load(folder: string): Promise<TextTokenizer> {
    const file = join(folder, 'tokenizer.json');
    const { json, config, limit, first, keepsEnd, padsLeft } = await readConfiguration(folder);
    if (!json) {
      throw new ResidualSkipError(
        'INVALID_DATA',
        `file ${file}: it doesn't exist; texts need the tokenizer that the model was trained with`,
      );
    }
    const { Tokenizer } = loadLibrary();
    try {
      const tokenizer = new Tokenizer(json, config);
      const { pad_token: pad } = config;
      const name = typeof pad === 'string' ? pad : pad?.content;
      const known = name === undefined ? undefined : tokenizer.token_to_id(name);
      const padding = json.padding?.pad_id ?? known ?? 0;
      return new TextTokenizer(tokenizer, limit, padding, padsLeft, first, keepsEnd);
    } catch (cause) {
      const why = (cause as Error).message;
      throw new ResidualSkipError('INVALID_DATA', `file ${file}: it can't be used (${why})`, { cause });
    }
  }

  /** Put in front of each single text. */
  get prompt(): string {
    return this.first.prompt;
  }

  /**
   * The tokens of a text, or of a pair of them. Of more than `limit`, the first ones of each text are kept (the last ones if the files say
   * so), the longer one being cut first, with the special tokens around them.
   */
  encode(text: string, pair?: string, limit = this.limit): Encoded {
    const begin = (one: string) => {
      const trimmed = this.first.trims ? one.trim() : one;
      return this.first.lowers ? trimmed.toLowerCase() : trimmed;
    };
    if (pair === undefined) return this.#encode([begin(this.first.prompt + text)], limit);
    return this.#encode([begin(text), begin(pair)], limit);
  }

  #encode([text, pair]: readonly [string, string?], limit: number | undefined): Encoded {
    const { ids, types } = this.#whole(text, pair);
    if (limit === undefined || ids.length <= limit) return { ids, types };
    const places = pair === undefined ? [this.#placeIn(text, ids)] : this.#placesOf([text, pair], ids);
    const lengths = places.map(({ length }) => length);
    const special = lengths.reduce((rest, length) => rest - length, ids.length);
    const kept = shared(lengths, Math.max(limit - special, 0));
    const isKept = (_: number, i: number) =>
      places.every(({ at, length }, k) => {
        const from = this.keepsEnd ? at + length - kept[k]! : at;
        return i < at || i >= at + length || (i >= from && i < from + kept[k]!);
      });
    return { ids: ids.filter(isKept), types: types.filter(isKept) };
  }

  #whole(text: string, pair: string | undefined): Encoded {
    const options = { text_pair: pair === '' ? WORD : (pair ?? null), return_token_type_ids: true } as const;
    const { ids, token_type_ids: types }: Encoding = this.tokenizer.encode(text, options);
    if (pair !== '') return { ids, types };
    // The library takes an empty second text for none.
    const { at, length } = this.#placesOf([text, WORD], ids)[1]!;
    const isKept = (_: number, i: number) => i < at || i >= at + length;
    return { ids: ids.filter(isKept), types: types.filter(isKept) };
  }

  /** Where those of a single text are, without splitting it again: the special tokens are the same around every text. */
  #placeIn(text: string, ids: readonly number[]) {
    if (!this.#around) {
      const { ids: word }: Pick<Encoding, 'ids'> = this.tokenizer.encode(WORD);
      const [{ at, length }] = this.#placesOf([WORD], word) as [{ at: number; length: number }];
      this.#around = { before: at, count: word.length - length, known: length > 0 };
    }
    const { before, count, known } = this.#around;
    return known ? { at: before, length: ids.length - count } : this.#placesOf([text], ids)[0]!;
  }

  /** Where the texts' own tokens are among those with special tokens. */
  #placesOf(texts: readonly string[], ids: readonly number[]) {
    let from = 0;
    return texts.map((text) => {
      const { ids: own }: Pick<Encoding, 'ids'> = this.tokenizer.encode(text, { add_special_tokens: false });
      const at = ids.findIndex((_, start) => start >= from && own.every((id, i) => ids[start + i] === id));
      from = at + own.length;
      return { at, length: own.length };
    });
  }
}

/**
 * How many tokens of one text, or of two, are kept of `room`: of two, the shorter one keeps up to half, and the other, or else the second,
 * the rest, as in Hugging Face's tokenizers.
 */
function shared([first, second]: readonly number[], room: number): readonly number[] {
  if (second === undefined) return [Math.min(first!, room)];
  const short = Math.min(first!, second, Math.floor(room / 2));
  const long = Math.min(Math.max(first!, second), room - short);
  return first! > second ? [long, short] : [short, long];
}
