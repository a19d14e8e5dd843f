import type { Prediction } from '../classify/class-scores.js';
import type { DataModel } from '../classify/data-model.js';
import { type Item, prepareItems } from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import type { SessionOptions } from '../session/options.js';
import { InferenceSession } from '../session/session.js';
import type { ModelSource } from '../session/source.js';
import type { BlockInfo } from '../skip/block-info.js';
import { lossOf } from '../skip/losses.js';
import type { TensorMap } from '../skip/observer.js';
import { isVectorMetric, type Promised, partsOf } from '../skip/promise.js';
import { type CustomLoss, runLoss } from '../skip/run-loss.js';
import type { ItemTrace } from '../skip/trace.js';
import type { Tensor } from '../tensor/tensor.js';
import { type EnergyReport, measureEnergy } from './energy.js';

/** What one item did, and the totals that its trace is compared with. */
export interface Classification {
  /** Class scores, or the vector of a network without classes. */
  readonly scores: Float32Array;
  readonly trace: ItemTrace;
  readonly multiplyAdds: number;
  readonly layers: number;
}

/** A run with its time. */
export interface Timed {
  /** Class scores, or the vector of a network without classes. */
  readonly scores: Float32Array;
  readonly outputs: TensorMap;
  readonly milliseconds: number;
}

/** Pairs of runs before the first that is timed, and the time after which no further one is begun. */
const WARM_UP_PAIRS = 50;
const WARM_UP_MS = 200;
/**
 * Most items whose energy is measured: as many as fit into 256 MiB, but 100 to 5,000. If one in ten takes ten times as
 * long, the standard error of the mean is a seventh of it with 100 items, and a fiftieth with 5,000.
 */
export function mostMeasured({ dims }: Tensor): number {
  const bytes = dims.reduce((product, length) => product * length, 4);
  return Math.min(5000, Math.max(100, Math.floor(2 ** 28 / bytes)));
}

/** A network whose runs are timed, one item at a time on the calling thread. */
export class TimedClassifier {
  /** Items that `prepare` left out. */
  readonly unusable: Unusable;
  /** The outputs to fetch: that of the answer, and others that are promised. */
  readonly #fetched: readonly string[];
  /** Shape of the item that ran last. */
  #shape = '';
  #original: InferenceSession | undefined;

  constructor(readonly model: DataModel) {
    this.unusable = new Unusable([], model.what);
    this.#fetched = [...new Set([model.output, ...(model.session.policy.promise?.outputs ?? [])])];
  }

  /**
   * From now on, `full` runs the original in float32: the network that the session's was made from.
   * @throws what InferenceSession.create throws
   */
  async compareWith(
    original: ModelSource,
    { backend, isa, threads }: Pick<SessionOptions, 'backend' | 'isa' | 'threads'>,
  ): Promise<void> {
    this.#original = await InferenceSession.create(original, { backend, isa, threads, policy: 'full' });
  }

  get hasOriginal(): boolean {
    return this.#original !== undefined;
  }

  /** A note if the promise is about the answers of an original that wasn't given; undefined otherwise. */
  get originalNote(): string | undefined {
    const { original } = this.session.policy;
    if (this.hasOriginal || original === undefined) return undefined;
    return (
      `the promise is about the answers of the network with SHA-256 ${original}; give it as the option original, ` +
      'or answers and times are compared with those of this one in full'
    );
  }

  get name(): string {
    return this.model.name;
  }

  get session(): InferenceSession {
    return this.model.session;
  }

  /** The residual blocks; costs are those of the item that ran last. */
  get blocks(): readonly BlockInfo[] {
    return this.session.blocks;
  }

  /** "native" or "reference". */
  get backend(): string {
    return this.session.backend;
  }

  /** Prepares items in order, a few ahead of the consumer; without those that are noted in `unusable`. */
  async *prepare<T extends Pick<Item<Tensor>, 'prepare'>>(
    items: Iterable<T> | AsyncIterable<T>,
  ): AsyncGenerator<{ item: T; tensor: Tensor }, void, undefined> {
    for await (const { item, tensor } of prepareItems(items, this.unusable)) {
      if (tensor) yield { item, tensor };
    }
  }

  /** What `session.run` takes for one prepared item. */
  feeds(tensor: Tensor): TensorMap {
    return this.model.feeds(tensor);
  }

  /** Runs with the session's policy; of a shape that the last item didn't have, programs are then ready to be timed. */
  classify(tensor: Tensor): Classification {
    const { outputs, trace } = this.session.runTracedSync(this.feeds(tensor), this.#fetched);
    const { multiplyAdds, layers } = trace;
    const shape = tensor.dims.join();
    if (shape !== this.#shape) this.time(tensor, 'full');
    this.#shape = shape;
    return {
      scores: this.model.answerOf(outputs, tensor),
      trace: trace.items[0]!,
      multiplyAdds,
      layers,
    };
  }

  /** Runs and takes the time; `full` runs every block, of the original if there is one, `skip` follows the session's policy. */
  time(tensor: Tensor, mode: 'full' | 'skip'): Timed {
    const session = (mode === 'full' && this.#original) || this.session;
    const options = mode === 'full' ? { policy: 'full' } : {};
    const feeds = this.feeds(tensor);
    const start = performance.now();
    const outputs = session.runSync(feeds, this.#fetched, options);
    const milliseconds = performance.now() - start;
    return { scores: this.model.answerOf(outputs, tensor), outputs, milliseconds };
  }

  /**
   * Both times of the item that `classify` ran last. A run finds its weights in the caches if the run before had the same mode. Whichever
   * mode is first has that: `skip` follows the run of `classify`, and `full` a run that doesn't count.
   */
  timeBoth(tensor: Tensor, first: 'full' | 'skip'): Readonly<Record<'full' | 'skip', Timed>> {
    if (first === 'skip') return { skip: this.time(tensor, 'skip'), full: this.time(tensor, 'full') };
    this.time(tensor, 'full');
    return { full: this.time(tensor, 'full'), skip: this.time(tensor, 'skip') };
  }

  /**
   * How the loss of a promise follows from two runs of an item.
   * @returns undefined where they don't tell
   */
  lossOf(
    promise: Promised,
    custom: CustomLoss | undefined,
  ): ((skipping: Timed, full: Timed, tensor: Tensor) => number) | undefined {
    const { model, session } = this;
    const { name } = partsOf(promise.metric);
    if (model.what === 'text' && name !== 'custom') {
      // Vectors of texts are pooled, and what fills a text up counts as tokens.
      if (name === 'tokens' || name === 'ctc') return undefined;
      const loss = isVectorMetric(promise.metric) && !model.labels ? lossOf(promise.metric) : undefined;
      if (loss) return (skipping, full) => loss(skipping.scores, full.scores);
    }
    const names = session.outputMetadata.map((output) => output.name);
    const loss = runLoss(promise, names, session.context.classScores, custom);
    return loss && ((skipping, full, tensor) => loss(skipping.outputs, full.outputs, this.feeds(tensor)));
  }

  /** Runs untimed for a moment: code, caches and clock rate reach their steady state. */
  warmUp(tensor: Tensor): void {
    const start = performance.now();
    for (let i = 0; i < WARM_UP_PAIRS && performance.now() - start < WARM_UP_MS; i++) {
      this.time(tensor, 'full');
      this.time(tensor, 'skip');
    }
  }

  /** What one item takes of the processor, over stretches of `tensors`; observers of the session see these runs. */
  measureEnergy(tensors: readonly Tensor[]): EnergyReport {
    return measureEnergy(tensors.length, (mode, indices) => {
      for (const i of indices) this.time(tensors[i]!, mode);
    });
  }

  /** The most probable classes; none for a network without classes. */
  predict(scores: Float32Array, count: number): Prediction[] {
    return this.model.predict(scores, count);
  }

  async release(): Promise<void> {
    await Promise.all([this.session.release(), this.#original?.release()]);
  }
}
