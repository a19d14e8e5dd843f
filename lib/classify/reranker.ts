import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import type { SessionOptions } from '../session/options.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloatType } from '../tensor/tensor.js';
import { checkOptions, parseStrict } from '../util/validation.js';
import { TextModel, TextNetwork, type TextRunOptions, textRunShape } from './text-model.js';

/** Options of `Reranker.rank`. */
export interface RankOptions extends TextRunOptions {
  /** Documents to return, best first; all when left out. */
  topK?: number | undefined;
  /**
   * Farthest that a score which was given early may be from the network's own; needs `topK`. Documents that left early and may still
   * belong to the best `topK`, or not, are run again in full; the list ends when none can. `calibrateRanking` finds it. When left
   * out, scores stay as the policy gives them.
   */
  margin?: number | undefined;
}

/** A document of a list. */
export interface RankedDocument {
  /** Its place in the list that was given. */
  readonly index: number;
  /** The network's number for the pair: the higher, the better. Of two classes, how far the second one's score is above the first's. */
  readonly score: number;
  /** What the pair ran and skipped when it got this score; null unless `trace` was asked for. */
  readonly trace: ItemTrace | null;
}

/** The score of a pair. */
export interface PairScore {
  readonly score: number;
  readonly trace: ItemTrace;
  /** Of the pair in full. */
  readonly multiplyAdds: number;
  /** Whether it is the network's own. */
  readonly final: boolean;
}

const rankSchema = z
  .strictObject({
    topK: z.int().positive().optional(),
    margin: z.number().min(0).optional(),
    ...textRunShape,
  })
  .refine(({ topK, margin }) => margin === undefined || topK !== undefined, {
    error: 'margin needs topK',
  });

/**
 * Orders documents by how well they fit a query: a cross-encoder, which reads both together and gives a number, or scores of two classes.
 * Needs its tokenizer.json, and the package `@huggingface/tokenizers`.
 *
 * ```ts
 * const reranker = await Reranker.from('models/ms-marco-MiniLM-L6-v2');
 * const [best] = await reranker.rank('how to skip blocks', ['about gates', 'about cats'], { topK: 1 });
 * ```
 */
export class Reranker extends TextNetwork {
  private constructor(
    model: TextModel,
    /** Name of the output that is read. */
    readonly output: string,
  ) {
    super(model);
  }

  /**
   * Loads a model, with `tokenizer.json` and `tokenizer_config.json` beside it.
   * @param path folder or ONNX file; a folder's `policy.json` is the policy unless `options.policy` names another
   * @throws ResidualSkipError INVALID_ARGUMENT when the model takes no tokens or has no score, INVALID_DATA for a file that can't be
   * used, MISSING_DEPENDENCY, and what InferenceSession.create throws
   */
  static async from(path: string, options: SessionOptions = {}): Promise<Reranker> {
    checkOptions(options);
    return TextModel.use(path, options, async (model) => {
      const { files, session } = model;
      return new Reranker(model, scoreOutput(session.outputMetadata, files.name).name);
    });
  }

  /**
   * The documents, best first; of equal ones, the first. Each pair runs at its own length; longer ones than the network takes are cut.
   * @throws ResidualSkipError INVALID_ARGUMENT, ABORTED, SESSION_RELEASED, and the errors of a policy that can't be used
   */
  async rank(
    query: string,
    documents: readonly string[],
    options: RankOptions = {},
  ): Promise<RankedDocument[]> {
    const { topK, margin, trace, ...rest } = parseStrict(rankSchema, options);
    checkList(query, documents);
    const all = documents.map((_, index) => index);
    const scores = await this.score(query, documents, all, rest);
    for (let open = openIn(scores, topK, margin); open.length > 0; open = openIn(scores, topK, margin)) {
      const again = await this.score(query, documents, open, { ...rest, policy: 'full' });
      for (const [k, index] of open.entries()) scores[index] = { ...again[k]!, final: true };
    }
    return rankingOf(scores)
      .slice(0, topK)
      .map((index) => ({ index, score: scores[index]!.score, trace: trace ? scores[index]!.trace : null }));
  }

  /**
   * The scores of some documents of a list.
   * @internal
   */
  async score(
    query: string,
    documents: readonly string[],
    indices: readonly number[],
    options: TextRunOptions,
  ): Promise<PairScore[]> {
    const pairs = indices.map((index) => ({ text: query, pair: documents[index]! }));
    const results = await this.model.run(pairs, this.output, { ...options, trace: true });
    return results.map(({ data, trace, multiplyAdds }) => ({
      ...{ score: scoreOf(data), trace: trace!, multiplyAdds: multiplyAdds! },
      final: trace!.blocks.every(({ ran }) => ran) && trace!.exits.every(({ taken }) => !taken),
    }));
  }
}

/** Indices of a list, best first. */
export function rankingOf(scores: readonly Pick<PairScore, 'score'>[]): number[] {
  return [...scores.keys()].sort((a, b) => scores[b]!.score - scores[a]!.score || a - b);
}

/**
 * The documents to run in full next: of those whose scores aren't final, and that may be in or out of the best `topK` if such a score is off by
 * at most `margin`, the half nearest to the border. Their own scores may settle the others. None where nothing can change.
 */
export function openIn(
  scores: readonly Pick<PairScore, 'score' | 'final'>[],
  topK: number | undefined,
  margin: number | undefined,
): number[] {
  if (topK === undefined || margin === undefined || topK >= scores.length) return [];
  const ranking = rankingOf(scores);
  const reach = (index: number) => (scores[index]!.final ? 0 : margin);
  const low = (index: number) => scores[index]!.score - reach(index);
  const high = (index: number) => scores[index]!.score + reach(index);
  const [inside, outside] = [ranking.slice(0, topK), ranking.slice(topK)];
  // The least that any of the best may have, and the most that any other may.
  const worst = Math.min(...inside.map(low));
  const best = Math.max(...outside.map(high));
  if (worst > best) return [];
  const open = [
    ...inside.filter((index) => low(index) <= best),
    ...outside.filter((index) => high(index) >= worst),
  ];
  const border = (scores[inside.at(-1)!]!.score + scores[outside[0]!]!.score) / 2;
  const distance = (index: number) => Math.abs(scores[index]!.score - border);
  const waiting = open
    .filter((index) => !scores[index]!.final)
    .sort((a, b) => distance(a) - distance(b) || a - b);
  return waiting.slice(0, Math.ceil(waiting.length / 2));
}

function scoreOf(data: Float32Array): number {
  return data.length === 1 ? data[0]! : data[1]! - data[0]!;
}

function checkList(query: unknown, documents: unknown): void {
  if (
    typeof query === 'string' &&
    Array.isArray(documents) &&
    documents.every((one) => typeof one === 'string')
  )
    return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    'rank: expected a query and an array of documents, all of them texts',
  );
}

/** `logits`, or else the first output with one or two numbers for each pair. */
function scoreOutput(outputs: readonly TensorMetadata[], model: string): TensorMetadata {
  const fitting = outputs.filter(({ type, shape: [, width = 1, ...rest] }) => {
    return isFloatType(type) && rest.length === 0 && (width === 1 || width === 2);
  });
  const chosen = fitting.find(({ name }) => name === 'logits') ?? fitting[0];
  if (chosen) return chosen;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${model}: it has no output of floats [batch, 1], a score, or [batch, 2], scores of two classes; a reranker needs one`,
  );
}
