import { EventEmitter } from 'node:events';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import {
  type RunEvent,
  type RunObserver,
  type SessionControl,
  type TensorMap,
  warn,
} from '../skip/observer.js';
import { profileSchema, type ScoreProfiles } from '../skip/profile.js';
import { isVectorMetric, type Metric, maxLoss } from '../skip/promise.js';
import type { CustomLoss } from '../skip/run-loss.js';
import type { ItemTrace } from '../skip/trace.js';
import { Tensor } from '../tensor/tensor.js';
import { LruMap } from '../util/lru-map.js';
import { parseStrict } from '../util/validation.js';
import { RateMonitor } from './confidence.js';
import { type Drift, DriftMonitor } from './drift-monitor.js';
import { hashAll, partsOf } from './hash.js';
import { shadowLoss, type Tested, testedBy } from './shadow-loss.js';

/** Options of `watch`. */
export interface WatchOptions {
  /** Fraction of the items that also run in full, in the background; 0.01 by default. */
  shadow?: number | undefined;
  /**
   * Acceptable rate of answers that differ from the full network's. By default, what the session's policy promises is tested, by its
   * metric and limit; without a promise 0.01. A promise on accuracy needs labels: for one, changed answers are counted and nothing
   * is tested, unless this option says how many may change.
   */
  maxDisagreement?: number | undefined;
  /**
   * Probability that no false alarm is ever raised, however long it watches and however often it is rearmed; 0.95 by
   * default.
   */
  confidence?: number | undefined;
  /** Whether items that equal one of the last 10,000 that were checked are left out, so that one source that repeats itself isn't many. */
  distinct?: boolean | undefined;
  /** `full` (the default): the session runs every block from then on. `warn`: only the event. */
  onTrip?: 'full' | 'warn' | undefined;
  /**
   * Scores to compare with, by block. By default those from the calibration of the session's policy, otherwise the
   * first `window` items of the stream.
   */
  profile?: ScoreProfiles | undefined;
  /** The same for the confidences of early exits, by the exit's block. */
  exitProfile?: ScoreProfiles | undefined;
  /** Items in one window of drift detection; 500 by default. */
  window?: number | undefined;
  /** The loss of an item, 0 to 1, for a policy that promises the metric `custom`: the function that it was calibrated with. */
  loss?: CustomLoss | undefined;
}

/** What a monitor has seen. */
export interface WatchStats {
  /** Items that it has seen. */
  readonly items: number;
  /**
   * Items of the shadow sample since it was armed: those that ran again in full, and those that had run in full
   * anyway.
   */
  readonly checks: number;
  /** What is tested: that the mean loss of this metric is at most the limit. The limit is null where nothing is tested. */
  readonly metric: Metric;
  readonly limit: number | null;
  /** Items of the sample whose answer is not the full network's; for a metric whose losses aren't counts, their sum. */
  readonly disagreements: number;
  /**
   * Both ends of the confidence sequence of the disagreement, or of the mean loss, since it was armed, valid at every time. Each is a
   * one-sided bound that holds with probability 1 minus the share of the error budget that this arming may spend, see
   * `rearm`. In the first arming, the rate is between the two with probability `confidence`.
   */
  readonly disagreement: readonly [number, number];
  /** Number of armings: 1 until the first `rearm`. */
  readonly armings: number;
  /** Whether it has exceeded the limit since it was armed. */
  readonly tripped: boolean;
  /** Shadow runs that failed, or whose loss couldn't be computed. */
  readonly failures: number;
  /** Of the last complete window. */
  readonly drift: readonly Drift[];
}

declare module '../skip/observer.js' {
  interface SessionStats {
    readonly watch?: WatchStats;
    readonly [another: `watch${number}`]: WatchStats | undefined;
  }
}

interface WatchEvents {
  /** The lower bound of the disagreement has exceeded the limit. */
  trip: [WatchStats];
  /** Scores or skip rates of at least one gate or exit have moved away from the profile. */
  drift: [readonly Drift[]];
}

const share = z.number().gt(0).lt(1);
const optionsSchema = z.strictObject({
  shadow: z.number().min(0).max(1).optional(),
  maxDisagreement: share.optional(),
  confidence: share.optional(),
  distinct: z.boolean().optional(),
  onTrip: z.enum(['full', 'warn']).optional(),
  profile: z.record(z.string(), profileSchema).optional(),
  exitProfile: z.record(z.string(), profileSchema).optional(),
  window: z.int().min(50).optional(),
  loss: z
    .custom<CustomLoss>((value) => typeof value === 'function', { error: 'expected a function' })
    .optional(),
});

/** Most shadow items that may wait; further ones are dropped, so that a fast stream can't accumulate them. */
const MAX_WAITING = 16;

/** Items that are remembered, so that equal ones are left out. */
const MAX_CHECKED = 10_000;

/** Rates that can be tested: of a limit below them any loss is too much, and one above them is as good as none. */
const [LEAST, MOST] = [1e-9, 0.999];

/** An observer that compares answers of items that skipped with those of the full network; see watch. */
export class Watch extends EventEmitter<WatchEvents> implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: Required<Omit<WatchOptions, 'profile' | 'exitProfile' | 'maxDisagreement' | 'loss'>>;
  readonly #maxDisagreement: number | undefined;
  readonly #loss: CustomLoss | undefined;
  readonly #profiles: Pick<WatchOptions, 'profile' | 'exitProfile'>;
  #tested: Tested;
  #monitor: RateMonitor;
  #control: SessionControl | undefined;
  #driftMonitor: DriftMonitor;
  #items = 0;
  #tripped = false;
  #failures = 0;
  #warned = false;
  #waiting = 0;
  #queue: Promise<void> = Promise.resolve();
  /** Hashes of the inputs of items that were checked since it was armed, if they must be distinct. */
  readonly #checked = new LruMap<true>(MAX_CHECKED);
  #drift: readonly Drift[] = [];

  constructor(options: WatchOptions = {}) {
    super();
    const known = Object.keys(optionsSchema.shape);
    const { profile, exitProfile, maxDisagreement, loss, ...parsed } = parseStrict(optionsSchema, options, {
      code: 'INVALID_ARGUMENT',
      subject: 'watch options',
      known,
    });
    const defaults = {
      shadow: 0.01,
      confidence: 0.95,
      distinct: false,
      onTrip: 'full',
      window: 500,
    } as const;
    this.#options = { ...defaults, ...parsed };
    this.#profiles = { profile, exitProfile };
    this.#driftMonitor = this.#makeDriftMonitor();
    this.#maxDisagreement = maxDisagreement;
    this.#loss = loss;
    this.#tested = testedBy(maxDisagreement, undefined);
    this.#monitor = this.#makeMonitor();
  }

  /** @throws ResidualSkipError INVALID_ARGUMENT if it belongs to another session */
  onAttach(control: SessionControl): void {
    if (this.#control) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'observers: this watch() belongs to another session; create one for each session',
      );
    }
    this.#control = control;
    this.#driftMonitor = this.#makeDriftMonitor();
    const tested = testedBy(this.#maxDisagreement, control.promise);
    if (tested.metric !== this.#tested.metric || tested.limit !== this.#tested.limit) {
      this.#tested = tested;
      this.#monitor = this.#makeMonitor();
    }
    if (tested.limit === null)
      this.#warn(
        "tests no promise: the policy's is about accuracy, which needs labels; give maxDisagreement to limit changed answers",
      );
  }

  onRun(event: RunEvent): void {
    const { trace, inputs, outputs } = event;
    const { metric } = this.#tested;
    const { promise } = this.#control ?? {};
    const own = promise?.metric === metric ? promise : undefined;
    const loss = shadowLoss(metric, event, own, {
      custom: this.#loss,
      reader: this.#control?.answerReader?.(),
    });
    if (!loss) this.#warn(`checks no answers: ${untestable(metric)}`);
    const count = trace.items.length;
    this.#items += count;
    for (const [item, itemTrace] of trace.items.entries()) {
      const closed = this.#driftMonitor.see(itemTrace);
      if (closed) this.#drift = closed.drift;
      if (closed && closed.moved.length > 0) this.#report('drift', closed.moved);
      // What is drawn or dropped must not depend on what the item did; otherwise the tested rate isn't the promised
      // one.
      if (!loss || this.#tripped || isTripped(itemTrace) || Math.random() >= this.#options.shadow) continue;
      if (this.#waiting >= MAX_WAITING) continue;
      if (this.#options.distinct && !this.#isNew(hashAll([partsOf(inputs, item, count)]))) continue;
      this.#waiting++;
      if (this.#control?.hasOriginal ? isGuarded(itemTrace) : ranInFull(itemTrace)) {
        this.#queue = this.#queue.then(() => this.#agree());
      } else {
        const feeds = itemOf(inputs, item, count);
        const answer = itemOf(outputs, item, count);
        this.#queue = this.#queue.then(() => this.#check(feeds, (full) => loss(answer, full, feeds)));
      }
    }
  }

  /** Waits for the shadow runs in progress. */
  async settled(): Promise<void> {
    await this.#queue;
  }

  async onRelease(): Promise<void> {
    this.#control = undefined;
    await this.#queue;
  }

  /**
   * Discards the evidence so far and lets the session skip again. Arming number k (the first is 1) raises a false
   * alarm with probability at most alpha / (k (k + 1)), where alpha is 1 - `confidence`. Over all armings that adds
   * up to alpha, so the promise holds however often it is rearmed.
   */
  rearm(): void {
    this.#monitor.rearm();
    this.#checked.clear();
    this.#tripped = false;
    this.#control?.setFullDepth(false);
  }

  stats(): { watch: WatchStats } {
    return { watch: this.#snapshot() };
  }

  #snapshot(): WatchStats {
    const max = maxLoss(this.#tested.metric);
    return {
      ...this.#tested,
      items: this.#items,
      checks: this.#monitor.trials,
      disagreements: max * this.#monitor.events,
      disagreement: [max * this.#monitor.lower, max * this.#monitor.upper],
      armings: this.#monitor.armings,
      tripped: this.#tripped,
      failures: this.#failures,
      drift: this.#drift,
    };
  }

  #isNew(digest: Uint8Array): boolean {
    const key = Buffer.from(digest.buffer).toString('base64');
    if (this.#checked.get(key)) return false;
    this.#checked.set(key, true);
    return true;
  }

  #agree(): void {
    this.#waiting--;
    if (this.#control) this.#observe(0);
  }

  async #check(feeds: TensorMap, lossOf: (full: TensorMap) => number): Promise<void> {
    let loss: number;
    try {
      if (!this.#control) return;
      loss = lossOf(await this.#control.runFull(feeds, 'low'));
    } catch {
      // A session that is being released runs nothing more.
      if (this.#control) this.#failures++;
      return;
    } finally {
      this.#waiting--;
    }
    this.#observe(loss / maxLoss(this.#tested.metric));
  }

  /** Once, and not where nothing was to be checked. */
  #warn(what: string): void {
    if (this.#warned || this.#options.shadow === 0) return;
    this.#warned = true;
    warn(new Error(`watch() ${what}`));
  }

  /** A listener that throws must not prevent further observation. */
  #report<K extends keyof WatchEvents>(name: K, ...what: WatchEvents[K]): void {
    try {
      (this as EventEmitter).emit(name, ...what);
    } catch (error) {
      warn(error);
    }
  }

  /** One shadow check: whether the answer with skipping differs from the full one. */
  observe(disagrees: boolean): void {
    this.#observe(Number(disagrees));
  }

  /** @param loss as a share of the largest */
  #observe(loss: number): void {
    this.#monitor.observe(loss);
    if (this.#tripped || this.#tested.limit === null || !this.#monitor.exceeded) return;
    this.#tripped = true;
    if (this.#options.onTrip === 'full') this.#control?.setFullDepth(true);
    this.#report('trip', this.#snapshot());
  }

  #makeMonitor(): RateMonitor {
    const { metric, limit } = this.#tested;
    const rate = (limit ?? MOST) / maxLoss(metric);
    return new RateMonitor(Math.min(Math.max(rate, LEAST), MOST), 1 - this.#options.confidence);
  }

  #makeDriftMonitor(): DriftMonitor {
    const { profile, exitProfile } = this.#profiles;
    const { gate, exit } = this.#control?.profiles ?? {};
    return new DriftMonitor(this.#options.window, { gate: profile ?? gate, exit: exitProfile ?? exit });
  }
}

/**
 * An observer for `InferenceSession.create`: a random share of the items also runs in full, at low priority, and an
 * anytime-valid test decides whether skipping changes more answers than promised. Emits `trip` if it does (the
 * session then runs in full until `rearm()`), and `drift` when gate scores move.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function watch(options?: WatchOptions): Watch {
  return new Watch(options);
}

/** Another monitor made the item run in full, which says nothing about the policy. */
function isTripped({ blocks }: ItemTrace): boolean {
  return blocks.some(({ reason }) => reason === 'tripped');
}

/** Whether a guard has replaced the answer by that of the full network, or of the original. */
function isGuarded({ blocks }: ItemTrace): boolean {
  return blocks[0]?.reason === 'guard';
}

/** Whether the answer is the full network's. An exit's answer isn't, even behind the last block. */
function ranInFull(trace: ItemTrace): boolean {
  const { blocks, exits } = trace;
  if (!blocks.every(({ ran }) => ran)) return false;
  return isGuarded(trace) || !exits.some(({ taken }) => taken);
}

/** One item of a batch, copied; a tensor that all items share is copied whole. */
function itemOf(tensors: TensorMap, item: number, items: number): TensorMap {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { type, data, dims }]) => {
      if (dims[0] !== items) return [name, new Tensor(type, data.slice() as Float32Array, dims)];
      const each = data.length / items;
      const part = data.slice(item * each, (item + 1) * each) as Float32Array;
      return [name, new Tensor(type, part, [1, ...dims.slice(1)])];
    }),
  );
}

function untestable(metric: Metric): string {
  return isVectorMetric(metric)
    ? `the session's outputs don't tell the loss of the metric '${metric}' that the policy promises`
    : 'the model has no output of class scores, float32 [batch, classes]';
}
