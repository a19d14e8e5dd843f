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
    truncation: z.looseObject({ max_length: z.int().positive() }).nullish(),
    padding: z.looseObject({ pad_id: z.int().nonnegative() }).nullish(),
  }),
);
const configSchema = late(() =>
  z.looseObject({
    model_max_length: z.number().positive().nullish(),
    pad_token: specialToken(),
  }),
);
const sentenceSchema = late(() => z.looseObject({ max_seq_length: z.int().positive().nullish() }));
const modelSchema = late(() => z.looseObject({ max_position_embeddings: z.int().positive().nullish() }));

/** Configurations without a limit have 1e30 there. */
const NO_LIMIT = 1e9;

/** Inputs of networks of texts, each [batch, tokens]. */
export const TOKEN_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'] as const;

/** The files beside a model that say how texts become tokens, and how many. */
async function readConfiguration(folder: string) {
  const json = await readJson(join(folder, 'tokenizer.json'), tokenizerSchema());
  const config = (await readJson(join(folder, 'tokenizer_config.json'), configSchema())) ?? {};
  const sentence = await readJson(join(folder, 'sentence_bert_config.json'), sentenceSchema());
  const model = await readJson(join(folder, 'config.json'), modelSchema());
  const limits = [
    // sentence-transformers puts it in place of the tokenizer's own.
    sentence?.max_seq_length ?? json?.truncation?.max_length,
    config.model_max_length,
    model?.max_position_embeddings,
  ].filter((limit) => typeof limit === 'number' && limit < NO_LIMIT) as number[];
  return { json, config, limit: limits.length > 0 ? Math.min(...limits) : undefined };
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
  const { json, config, limit } = await readConfiguration(folder);
  // Nothing is decoded, and truncation is in the limit.
  const { decoder: _, truncation: __, ...deciding } = json!;
  const made = JSON.stringify([VERSION, deciding, config, limit ?? null, ...further]);
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
  ) {}

  /**
   * Reads `tokenizer.json` and what is beside it.
   * @throws ResidualSkipError INVALID_DATA when there is none or it can't be used, MISSING_DEPENDENCY
   */
  static async load(folder: string): Promise<TextTokenizer> {
    const file = join(folder, 'tokenizer.json');
    const { json, config, limit } = await readConfiguration(folder);
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
      return new TextTokenizer(tokenizer, limit, json.padding?.pad_id ?? known ?? 0);
    } catch (cause) {
      const why = (cause as Error).message;
      throw new ResidualSkipError('INVALID_DATA', `file ${file}: it can't be used (${why})`, { cause });
    }
  }

  /**
   * The tokens of a text, or of a pair of them. Of more than `limit`, the first ones of each text are kept, the longer one being cut
   * first, with the special tokens around them.
   */
  encode(text: string, pair?: string, limit = this.limit): Encoded {
    const options = { text_pair: pair ?? null, return_token_type_ids: true } as const;
    const { ids, token_type_ids: types }: Encoding = this.tokenizer.encode(text, options);
    if (limit === undefined || ids.length <= limit) return { ids, types };
    const places = pair === undefined ? [this.#placeIn(text, ids)] : this.#placesOf([text, pair], ids);
    const kept = places.map(({ length }) => length);
    for (let excess = ids.length - limit; excess > 0 && Math.max(...kept) > 0; excess--) {
      kept[kept.lastIndexOf(Math.max(...kept))]!--;
    }
    const isKept = (_: number, i: number) =>
      places.every(({ at, length }, k) => i < at + kept[k]! || i >= at + length);
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
