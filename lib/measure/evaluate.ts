/** Evaluation: skipping against running every block. */
import { z } from 'zod';
import { type Data, openDataModel, sampled } from '../classify/data-model.js';
import type { ImageClassifierOptions } from '../classify/image-options.js';
import { type DataOptions, dataShape } from '../classify/images.js';
import { doubtOf, type TaskOptions, taskShape } from '../classify/task.js';
import { Work, type WorkOptions, workShape } from '../classify/work.js';
import { takeEvenly } from '../data/dataset.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { mean } from '../numeric/statistics.js';
import { cosineDistance, relativeError } from '../numeric/vectors.js';
import type { PolicyInfo } from '../session/own-policy.js';
import { answerOf } from '../skip/losses.js';
import { isVectorMetric, type Limit } from '../skip/promise.js';
import type { CustomLoss } from '../skip/run-loss.js';
import { answeredBy, type ItemTrace } from '../skip/trace.js';
import type { Tensor } from '../tensor/tensor.js';
import { append } from '../util/maps.js';
import { parsePart } from '../util/validation.js';
import type { EnergyReport } from './energy.js';
import { type LatencySummary, latencyOf, type PairedChange, pairedChange } from './statistics.js';
import { mostMeasured, type Timed, TimedClassifier } from './timed-classifier.js';

/** `policy`, `threads` and the other options of a classifier say what is evaluated; it is compared with the `original`, if there is one. */
export interface EvaluateOptions extends ImageClassifierOptions, DataOptions, TaskOptions, WorkOptions {
  /** Most items to use: of a path spread evenly over the data, of an iterable the first. */
  limit?: number | undefined;
  /** The loss of an item, for a policy that promises the metric `custom`: the function that it was calibrated with. */
  loss?: CustomLoss | undefined;
  /** Also measure what an item takes of the processor. It blocks the event loop for up to ten seconds. */
  energy?: boolean | undefined;
}

/** The mean loss by a metric, and the limit that is promised. */
export interface MeasuredLoss extends Limit {
  readonly mean: number;
  /** Of the other metrics that the policy promises. */
  readonly also?: readonly MeasuredLoss[];
}

/** What skipping gains and costs. Fractions are 0 to 1, averaged over items. */
export interface Evaluation {
  /** The policy that was evaluated, and what it promises. */
  readonly policy: PolicyInfo;
  /** Images or texts that were evaluated. */
  readonly items: number;
  /** With every block run: of the `original` in float32, if it was given. */
  readonly full: {
    /** Null unless every item has a label. */
    readonly accuracy: number | null;
    /** Of one item, at batch 1. */
    readonly latencyMs: LatencySummary;
  };
  /** With the policy. */
  readonly skip: {
    readonly accuracy: number | null;
    /** Items for which skipping and the full network name the same class; null where nothing says that answers are classes. */
    readonly agreement: number | null;
    /**
     * Means over the items, from the full network's vectors; null for a network with classes. `cosine` is null where the output is a
     * single number.
     */
    readonly distance: { readonly cosine: number | null; readonly relative: number } | null;
    /**
     * What the policy promises, on these items: the mean loss by the promise's metric, and its limit; `also` has the same of other metrics
     * that it promises. Null without a promise, without the `original` that a promise is about, and for
     * what a single item doesn't tell, `recall@k`, or what is above, `accuracy`.
     */
    readonly loss: MeasuredLoss | null;
    readonly latencyMs: LatencySummary;
    /** Of all residual blocks. */
    readonly blocksSkipped: number;
    /** Of all convolutions and fully connected layers. */
    readonly layersSkipped: number;
    /** Of the network's multiply-adds. */
    readonly multiplyAddsSkipped: number;
  };
  /** What answered: exits in the order in which they are asked, then the network; empty without exits. */
  readonly rungs: readonly EvaluatedRung[];
  /** 1 - skip.p50 / full.p50. */
  readonly latencyReduction: number;
  /** Null unless every item has a label. */
  readonly accuracyChange: PairedChange | null;
  /** Measured apart from the latency, over runs of one mode in a row; null unless it was asked for. */
  readonly energy: EnergyReport | null;
  /** What is wrong with items that were left out. */
  readonly unusable: readonly ResidualSkipError[];
}

/** Items that were answered at one place: an exit, a front, or at the end. Means are null where there were none. */
export interface EvaluatedRung {
  /** Of the exit: its block, or its front; null for the network itself. */
  readonly name: string | null;
  /** Fraction of all items. */
  readonly answered: number;
  /** As in `skip`, among these items. */
  readonly agreement: number | null;
  readonly accuracy: number | null;
  /** Mean share of the network's multiply-adds that they spent. */
  readonly work: number | null;
  /** Mean time with the policy. */
  readonly meanMs: number | null;
}

const ownShape = {
  ...dataShape(),
  ...taskShape(),
  ...workShape(),
  limit: z.int({ error: 'expected a whole number above 0' }).positive().optional(),
  energy: z.boolean().optional(),
  loss: z
    .custom<CustomLoss>((value) => typeof value === 'function', { error: 'expected a function' })
    .optional(),
};

/**
 * Measures accuracy, latency and skipped work of a model under a policy, against running every block. Each item runs by
 * itself on the calling thread, since its time is taken; the event loop gets turns between items.
 * @param model ONNX file, or a folder with one; a network of texts has `tokenizer.json` beside it
 * @param data a folder of images, with or without one folder for each class, or a file that holds many; or images or
 * tensors, float32[1, channels, height, width], one after another. Or a file of texts (.jsonl, .ndjson, .csv, .tsv), or texts. Or, for any
 * network, tensors by input: an iterable, or NumPy's files
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA or INVALID_SHAPE when no item can be used, ABORTED (an AbortError),
 * and what ImageClassifier.from, TextClassifier.from or Embedder.from throws. An image that can't be used is left out and named in
 * `unusable`.
 */
export async function evaluate(
  model: string,
  data: Data,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { own, rest } = parsePart(ownShape, options);
  const work = new Work('evaluation', own);
  work.check();
  const policy = rest.policy ?? (await findModel(model)).policy;
  const { data: source, sample } = await sampled(data, work);
  const asked = { ...rest, policy, maxPixels: own.maxPixels, onNote: work.note };
  const opened = await openDataModel(model, asked, own.task, sample);
  const classifier = new TimedClassifier(opened);
  try {
    if (rest.original !== undefined) await classifier.compareWith(rest.original, rest);
    return await measure(classifier, source, own, work);
  } finally {
    await classifier.release();
  }
}

async function measure(
  classifier: TimedClassifier,
  data: Data,
  options: Pick<EvaluateOptions, keyof typeof ownShape>,
  work: Work,
): Promise<Evaluation> {
  const { limit = Number.POSITIVE_INFINITY, energy = false } = options;
  const { promise } = classifier.session.policy;
  checkLoss(promise, options);
  const { originalNote } = classifier;
  const promised = originalNote === undefined;
  if (!promised) work.note(originalNote);
  const { list, count } = await classifier.model.open(data, options);
  const total = count === null ? null : Math.min(count, limit);
  const chosen = typeof data === 'string' && Array.isArray(list) ? takeEvenly(list, limit) : list;
  const tally = new Tally();
  const tested = promise && promised ? [promise, ...(promise.also ?? [])] : [];
  let lossesBy: ReturnType<TimedClassifier['lossOf']>[] | undefined;
  const losses = tested.map((): number[] => []);
  let sample: Sample<Tensor> | undefined;
  for await (const { item, tensor } of work.each(classifier.prepare(chosen))) {
    if (tally.items === 0) classifier.warmUp(tensor);
    const { trace, multiplyAdds, layers } = classifier.classify(tensor);
    const timed = classifier.timeBoth(tensor, tally.items % 2 === 0 ? 'full' : 'skip');
    if (energy) {
      sample ??= new Sample(mostMeasured(tensor));
      sample.add(tensor);
    }
    lossesBy ??= tested.map(({ metric }) => classifier.lossOf({ ...promise!, metric }, options.loss));
    for (const [m, loss] of lossesBy.entries())
      if (loss) losses[m]!.push(loss(timed.skip, timed.full, tensor));
    tally.add(item.label, timed.full, timed.skip, trace, {
      blocks: trace.blocks.filter(({ ran }) => !ran).length / Math.max(1, trace.blocks.length),
      layers: trace.layersSkipped / Math.max(1, layers),
      multiplyAdds: trace.multiplyAddsSkipped / Math.max(1, multiplyAdds),
    });
    work.report('evaluating', tally.items, total);
    if (tally.items >= limit) break;
  }
  classifier.unusable.checkSome(tally.items);
  const measured = tested.map(({ metric, limit }, m) => ({ metric, limit, mean: mean(losses[m]!) }));
  const [first, ...also] = lossesBy?.[0] ? measured : [];
  if (promise && promised && !first && promise.metric !== 'accuracy') {
    work.note(
      `the loss of the promised metric '${promise.metric}' isn't measured: an item's outputs alone don't tell it`,
    );
  }
  const report = tally.report(!doubted(classifier, tally, work));
  return {
    ...report,
    skip: {
      ...report.skip,
      loss: first ? { ...first, ...(also.length > 0 && { also }) } : null,
    },
    policy: classifier.session.policy,
    energy: sample ? classifier.measureEnergy(sample.taken) : null,
    unusable: classifier.unusable.problems,
  };
}

/** Whether the answers may be no classes; says why unless the policy promises something else. */
function doubted({ model, session }: TimedClassifier, { isLabelled }: Tally, work: Work): boolean {
  const doubt = doubtOf(model, session.context.classScores, isLabelled);
  const { promise } = session.policy;
  if (doubt && (model.labels || model.images) && !(promise && isVectorMetric(promise.metric))) {
    const { reason, remedy } = doubt;
    work.note(`answers aren't compared as classes: ${reason}${remedy ? `; ${remedy}` : ''}`);
  }
  return doubt !== undefined;
}

/** @throws ResidualSkipError INVALID_ARGUMENT unless a loss is given where one is needed, and only there */
function checkLoss(
  promise: PolicyInfo['promise'],
  { loss, task }: Pick<EvaluateOptions, 'loss' | 'task'>,
): void {
  const metric = promise?.metric;
  const why =
    metric === 'custom'
      ? "the policy promises the metric 'custom'"
      : task === 'custom' && "the task is 'custom'";
  if ((loss !== undefined) === (why !== false)) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    why
      ? `loss: ${why}, and only a function knows how far an answer is off; give evaluate() the one that \`calibrate\` had, ` +
          "or take the policy 'full' and another task"
      : `loss: it is for the metric 'custom', and the policy promises ${metric ? `'${metric}'` : 'nothing'}; omit it`,
  );
}

/** At most `most` of the values that are added, spread evenly over them, however many there will be. */
class Sample<T> {
  #taken: T[] = [];
  #every = 1;
  #count = 0;

  constructor(private readonly most: number) {}

  get taken(): readonly T[] {
    return this.#taken;
  }

  add(value: T): void {
    if (this.#count++ % this.#every !== 0) return;
    this.#taken.push(value);
    if (this.#taken.length <= this.most) return;
    this.#taken = this.#taken.filter((_, i) => i % 2 === 0);
    this.#every *= 2;
  }
}

/** One item, as it was answered at a rung. */
interface Answered {
  readonly agreed: boolean;
  readonly right: boolean;
  readonly work: number;
  readonly ms: number;
}

class Tally {
  items = 0;
  #labelled = 0;
  #right = { full: 0, skip: 0 };
  #gained = 0;
  #lost = 0;
  #agreed = 0;
  readonly #distances = { cosine: [] as number[], relative: [] as number[] };
  readonly #skipped = { blocks: 0, layers: 0, multiplyAdds: 0 };
  /** Items by what answered them, null for the network. */
  readonly #rungs = new Map<string | null, Answered[]>();
  readonly #times = { full: [] as number[], skip: [] as number[] };

  /** Whether every item has a label. */
  get isLabelled(): boolean {
    return this.#labelled === this.items;
  }

  add(
    label: number | undefined,
    full: Timed,
    skip: Timed,
    trace: ItemTrace,
    skipped: { blocks: number; layers: number; multiplyAdds: number },
  ) {
    this.items++;
    // NaN scores name no class: they agree with nothing, and are never right.
    const answers = { full: answerOf(full.scores), skip: answerOf(skip.scores) };
    const right = { full: answers.full === label, skip: answers.skip === label };
    if (label !== undefined) this.#labelled++;
    if (right.full) this.#right.full++;
    if (right.skip) this.#right.skip++;
    if (right.skip && !right.full) this.#gained++;
    if (right.full && !right.skip) this.#lost++;
    const agreed = answers.full >= 0 && answers.full === answers.skip;
    if (agreed) this.#agreed++;
    for (const { after } of trace.exits) if (!this.#rungs.has(after)) this.#rungs.set(after, []);
    append(this.#rungs, answeredBy(trace), {
      agreed,
      right: right.skip,
      work: 1 - skipped.multiplyAdds,
      ms: skip.milliseconds,
    });
    if (full.scores.length > 1) this.#distances.cosine.push(cosineDistance(skip.scores, full.scores));
    this.#distances.relative.push(relativeError(skip.scores, full.scores));
    for (const kind of ['blocks', 'layers', 'multiplyAdds'] as const) this.#skipped[kind] += skipped[kind];
    this.#times.full.push(full.milliseconds);
    this.#times.skip.push(skip.milliseconds);
  }

  /** @param classifies whether scores are those of classes; otherwise they are vectors */
  report(classifies: boolean): Omit<Evaluation, 'policy' | 'energy' | 'unusable' | 'skip'> & {
    skip: Omit<Evaluation['skip'], 'loss'>;
  } {
    const { items } = this;
    const { cosine, relative } = this.#distances;
    const latency = { full: latencyOf(this.#times.full), skip: latencyOf(this.#times.skip) };
    const ifLabelled = <T>(value: T) => (classifies && this.isLabelled ? value : null);
    return {
      items,
      full: { accuracy: ifLabelled(this.#right.full / items), latencyMs: latency.full },
      skip: {
        accuracy: ifLabelled(this.#right.skip / items),
        agreement: classifies ? this.#agreed / items : null,
        distance: classifies
          ? null
          : { cosine: cosine.length > 0 ? mean(cosine) : null, relative: mean(relative) },
        latencyMs: latency.skip,
        blocksSkipped: this.#skipped.blocks / items,
        layersSkipped: this.#skipped.layers / items,
        multiplyAddsSkipped: this.#skipped.multiplyAdds / items,
      },
      rungs: classifies ? this.#evaluatedRungs() : [],
      latencyReduction: 1 - latency.skip.p50 / latency.full.p50,
      accuracyChange: ifLabelled(pairedChange(items, this.#gained, this.#lost)),
    };
  }

  #evaluatedRungs(): EvaluatedRung[] {
    const names = [...this.#rungs.keys()].filter((name) => name !== null);
    if (names.length === 0) return [];
    return [...names, null].map((name) => {
      const some = this.#rungs.get(name) ?? [];
      const meanOf = (value: (one: Answered) => number) => (some.length === 0 ? null : mean(some.map(value)));
      return {
        name,
        answered: some.length / this.items,
        agreement: meanOf(({ agreed }) => Number(agreed)),
        accuracy: this.isLabelled ? meanOf(({ right }) => Number(right)) : null,
        work: meanOf(({ work }) => work),
        meanMs: meanOf(({ ms }) => ms),
      };
    });
  }
}
