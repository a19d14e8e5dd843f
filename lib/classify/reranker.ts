import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import type { TensorMetadata } from '../session/metadata.js';
import { StateMemory, type Stopped, StoppedItems } from '../session/stopped-items.js';
import { loadPolicy } from '../skip/load-policy.js';
import { hashPolicy, type SkipPolicy } from '../skip/policy.js';
import type { ItemTrace } from '../skip/trace.js';
import { isFloatType, type Tensor } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { keepRecent } from '../util/maps.js';
import { checkOptions, parseStrict } from '../util/validation.js';
import { type PairScore, rankingOf, type Stage, settleList, stagesOf } from './list-stages.js';
import { TextModel, type TextModelOptions, type TextRunOptions, textRunShape } from './text-model.js';
import { TextNetwork } from './text-network.js';

/** How far a score may be from the network's own at most, by the exit that gave it: exits of the policy, named by the block before them. */
export type Margins = Readonly<Record<string, number>>;

/** Margins that `calibrateRanking` certified, and what for. */
export interface CertifiedMargins {
  readonly topK: number;
  /** Null where none keep the limit, or none save time: lists run in full. */
  readonly margins: Margins | null;
  /** Hex SHA-256 of the policy whose exits these are, as canonical JSON. */
  readonly policySha256: string;
}

/** Options of `Reranker.rank`. */
export interface RankOptions extends TextRunOptions {
  /** Documents to return, best first; all when left out, or as many as `margins` are certified for. */
  topK?: number | undefined;
  /**
   * What `calibrateRanking` returned, for the policy and the `topK` that it certifies; or margins of your own, which need `topK`. All pairs run as far as the first of these exits; those that may still be among the best `topK` go on to the next, and
   * at last to the end of the network. What else the policy says of blocks and exits doesn't count. When left out, each pair runs as the
   * policy says.
   */
  margins?: CertifiedMargins | Margins | undefined;
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

const marginsSchema = late(() => z.record(z.string(), z.number().min(0)));
const certifiedSchema = late(() =>
  z.looseObject({
    topK: z.int().positive(),
    margins: marginsSchema().nullable(),
    policySha256: z.string(),
  }),
);
const isCertified = (margins: CertifiedMargins | Margins): margins is CertifiedMargins =>
  'policySha256' in margins;

const rankSchema = late(() =>
  z
    .strictObject({
      topK: z.int().positive().optional(),
      margins: z.union([marginsSchema(), certifiedSchema()]).optional(),
      ...textRunShape(),
    })
    .refine(({ topK, margins }) => margins === undefined || topK !== undefined || isCertified(margins), {
      error: 'margins need topK',
    }),
);

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
  /** Of policies with margins, by the exits that those name. */
  readonly #stages = new WeakMap<SkipPolicy, Map<string, Stage[]>>();
  readonly #memory = new StateMemory();

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
  static async from(path: string, options: TextModelOptions = {}): Promise<Reranker> {
    checkOptions(options);
    return TextModel.use(path, options, async (model) => {
      const { files, session } = model;
      await model.notePreparation(undefined);
      return new Reranker(model, scoreOutput(session.outputMetadata, files.name).name);
    });
  }

  /**
   * The documents, best first; of equal ones, the first. Each pair runs at its own length; longer ones than the network takes are cut.
   * @throws ResidualSkipError INVALID_ARGUMENT, POLICY_MISMATCH (margins that are certified for another policy), ABORTED, SESSION_RELEASED,
   * and the errors of a policy that can't be used
   */
  async rank(
    query: string,
    documents: readonly string[],
    options: RankOptions = {},
  ): Promise<RankedDocument[]> {
    const { margins: given, ...asked } = parseStrict(rankSchema(), options);
    checkList(query, documents);
    const { topK, margins, ...rest } = given
      ? this.#marginsOf(given, asked)
      : { ...asked, margins: undefined };
    const pairs = this.pairsOf(query, documents);
    const scores = margins
      ? await this.#inStages(pairs, topK!, margins, rest)
      : await pairs.score([...documents.keys()], rest);
    pairs.release();
    return rankingOf(scores)
      .slice(0, topK)
      .map((index) => ({ index, score: scores[index]!.score, trace: scores[index]!.trace }));
  }

  /**
   * The pairs of a list, to be run in stages.
   * @internal
   */
  pairsOf(query: string, documents: readonly string[]): ListPairs {
    return new ListPairs(this.model, this.output, this.#memory, query, documents);
  }

  /** The options with margins that are for them; without, and with the policy `full`, if none are certified. */
  #marginsOf(
    given: CertifiedMargins | Margins,
    options: Omit<RankOptions, 'margins'>,
  ): Omit<RankOptions, 'margins'> & { readonly margins?: Margins } {
    if (!isCertified(given)) return { ...options, margins: given };
    const { topK, margins, policySha256 } = given;
    if (options.topK !== undefined && options.topK !== topK) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `margins: they are certified for the best ${topK}, not for the best ${options.topK}; omit topK, or certify others (calibrateRanking)`,
      );
    }
    const { policy } = options;
    const sha256 = policy === undefined ? this.session.policy.sha256 : hashPolicy(loadPolicy(policy));
    if (sha256 !== policySha256) {
      throw new ResidualSkipError(
        'POLICY_MISMATCH',
        'margins: they are certified for another policy, whose exits give other scores; use that policy, or certify others (calibrateRanking)',
      );
    }
    return margins ? { ...options, topK, margins } : { ...options, topK, policy: 'full' };
  }

  #inStages(
    pairs: ListPairs,
    topK: number,
    margins: Margins,
    { policy, ...rest }: TextRunOptions,
  ): Promise<PairScore[]> {
    const source = policy === undefined ? this.session.ownPolicy : loadPolicy(policy);
    const names = Object.keys(margins);
    const key = JSON.stringify(names);
    const known = this.#stages.get(source) ?? new Map<string, Stage[]>();
    const stages = known.get(key) ?? keepRecent(known, key, stagesOf(source, names));
    this.#stages.set(source, known);
    return settleList(pairs.count, topK, stages, (indices, { after, policy }) =>
      pairs.goOn(indices, { ...rest, policy }, after === null ? 0 : margins[after]!),
    );
  }
}

/** The pairs of a query and documents. Each is tokenized once, and goes on from where an exit stopped it. */
export class ListPairs {
  readonly #prepared: readonly Tensor<'int32'>[];
  readonly #stopped: StoppedItems;

  constructor(
    private readonly model: TextModel,
    private readonly output: string,
    memory: StateMemory,
    query: string,
    documents: readonly string[],
  ) {
    this.#stopped = new StoppedItems(undefined, memory);
    this.#prepared = documents.map((pair) => model.prepare({ text: query, pair }));
  }

  get count(): number {
    return this.#prepared.length;
  }

  /** The scores of some of them, which won't run again. */
  score(items: readonly number[], options: TextRunOptions): Promise<PairScore[]> {
    return this.#run(items, options, 0);
  }

  /**
   * The scores of some of them, which may go on from there later.
   * @param reach how far these scores are from the network's own at most
   */
  goOn(items: readonly number[], options: TextRunOptions, reach: number): Promise<PairScore[]> {
    return this.#run(items, options, reach, { stopped: this.#stopped, items });
  }

  /** Ends the pairs, none of which is running: after an error, some may be. */
  release(): void {
    this.#stopped.release();
  }

  async #run(
    items: readonly number[],
    options: TextRunOptions,
    reach: number,
    of?: Stopped,
  ): Promise<PairScore[]> {
    const prepared = items.map((item) => this.#prepared[item]!);
    const results = await this.model.runPrepared(prepared, this.output, options, of);
    return results.map(({ data, trace, multiplyAdds }) => ({
      score: scoreOf(data),
      reach,
      trace,
      multiplyAdds,
    }));
  }
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
