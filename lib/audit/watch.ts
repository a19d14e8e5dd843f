import { EventEmitter } from 'node:events';
import { z } from 'zod';
import type { RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import { profileSchema, type ScoreProfiles } from '../skip/profile.js';
import { argMax } from '../skip/scores.js';
import { Tensor } from '../tensor.js';
import { parseStrict } from '../validation.js';
import { RateMonitor } from './confidence.js';
import { type Drift, DriftMonitor } from './drift-monitor.js';

export interface WatchOptions {
  /** Fraction of the items that is also run in full, in the background; 0.01 when left out. */
  shadow?: number;
  /** Rate of other answers than the full network's that is still acceptable; 0.01 when left out. */
  maxDisagreement?: number;
  /** Probability of never raising a false alarm, however long it watches; 0.95 when left out. */
  confidence?: number;
  /** `full` (when left out): the session runs every block from then on. `warn`: only the event. */
  onTrip?: 'full' | 'warn';
  /**
   * Scores to compare with, by block. When left out, those that the session's policy was calibrated with, or else the
   * first `window` items of the stream.
   */
  profile?: ScoreProfiles;
  /** The same for the confidences of early exits, by the block behind which they stand. */
  exitProfile?: ScoreProfiles;
  /** Items in one window of drift detection; 500 when left out. */
  window?: number;
}

export interface WatchStats {
  readonly items: number;
  readonly checks: number;
  readonly disagreements: number;
  /**
   * Both ends of the confidence sequence of the disagreement, valid at every time. Each is a one-sided bound at `confidence`;
   * the rate is between the two with 2 * confidence - 1.
   */
  readonly disagreement: readonly [number, number];
  readonly tripped: boolean;
  /** Shadow runs that could not be made. */
  readonly failures: number;
  /** Of the last whole window. */
  readonly drift: readonly Drift[];
}

interface WatchEvents {
  /** The lower bound of the disagreement has passed the limit. */
  trip: [WatchStats];
  /** Scores or skip rates of at least one gate or exit have moved away from the profile. */
  drift: [readonly Drift[]];
}

const share = z.number().gt(0).lt(1);
const optionsSchema = z.strictObject({
  shadow: z.number().min(0).max(1).optional(),
  maxDisagreement: share.optional(),
  confidence: share.optional(),
  onTrip: z.enum(['full', 'warn']).optional(),
  profile: z.record(z.string(), profileSchema).optional(),
  exitProfile: z.record(z.string(), profileSchema).optional(),
  window: z.int().min(50).optional(),
});

/** Shadow items that may wait; more are let go, so that a fast stream can't pile them up. */
const MOST_WAITING = 16;

/** An observer that checks skipped answers against full ones; see watch. */
export class Watch extends EventEmitter<WatchEvents> implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: Required<Omit<WatchOptions, 'profile' | 'exitProfile'>>;
  readonly #profiles: Pick<WatchOptions, 'profile' | 'exitProfile'>;
  readonly #monitor: RateMonitor;
  #control: SessionControl | undefined;
  #driftMonitor: DriftMonitor;
  #items = 0;
  #tripped = false;
  #failures = 0;
  #waiting = 0;
  #queue: Promise<void> = Promise.resolve();
  #drift: readonly Drift[] = [];

  constructor(options: WatchOptions = {}) {
    super();
    const known = Object.keys(optionsSchema.shape);
    const { profile, exitProfile, ...parsed } = parseStrict(optionsSchema, options, {
      code: 'INVALID_ARGUMENT',
      subject: 'watch options',
      known,
    });
    const defaults = {
      shadow: 0.01,
      maxDisagreement: 0.01,
      confidence: 0.95,
      onTrip: 'full',
      window: 500,
    } as const;
    this.#options = { ...defaults, ...parsed };
    this.#profiles = { profile, exitProfile };
    this.#driftMonitor = this.#makeDriftMonitor();
    this.#monitor = new RateMonitor(this.#options.maxDisagreement, 1 - this.#options.confidence);
  }

  onAttach(control: SessionControl): void {
    this.#control = control;
    this.#driftMonitor = this.#makeDriftMonitor();
  }

  onRun({ trace, inputs, outputs }: RunEvent): void {
    const count = trace.items.length;
    this.#items += count;
    for (const [item, itemTrace] of trace.items.entries()) {
      const { blocks } = itemTrace;
      const closed = this.#driftMonitor.see(itemTrace);
      if (closed) this.#drift = closed.drift;
      if (closed && closed.moved.length > 0) this.emit('drift', closed.moved);
      // An item that ran in full has nothing to disagree with.
      if (this.#tripped || blocks.every(({ ran }) => ran) || Math.random() >= this.#options.shadow) continue;
      if (this.#waiting >= MOST_WAITING) continue;
      this.#waiting++;
      const feeds = itemOf(inputs, item, count);
      const answer = answerOf(itemOf(outputs, item, count));
      this.#queue = this.#queue.then(() => this.#check(feeds, answer));
    }
  }

  /** Waits for the shadow runs that are under way. */
  async settled(): Promise<void> {
    await this.#queue;
  }

  async onRelease(): Promise<void> {
    this.#control = undefined;
    await this.#queue;
  }

  /** Forgets the evidence so far and lets the session skip again. */
  rearm(): void {
    this.#monitor.reset();
    this.#tripped = false;
    this.#control?.setFullDepth(false);
  }

  stats(): { watch: WatchStats } {
    return { watch: this.#snapshot() };
  }

  #snapshot(): WatchStats {
    return {
      items: this.#items,
      checks: this.#monitor.trials,
      disagreements: this.#monitor.events,
      disagreement: [this.#monitor.lower, this.#monitor.upper],
      tripped: this.#tripped,
      failures: this.#failures,
      drift: this.#drift,
    };
  }

  async #check(feeds: TensorMap, answer: number): Promise<void> {
    try {
      if (!this.#control) return;
      const full = await this.#control.runFull(feeds, 'low');
      this.observe(answerOf(full) !== answer);
    } catch {
      // A session that is being released runs nothing more.
      if (this.#control) this.#failures++;
    } finally {
      this.#waiting--;
    }
  }

  /** One shadow check: whether the skipped answer differs from the full one. */
  observe(disagrees: boolean): void {
    this.#monitor.observe(disagrees);
    if (this.#tripped || !this.#monitor.exceeded) return;
    this.#tripped = true;
    if (this.#options.onTrip === 'full') this.#control?.setFullDepth(true);
    this.emit('trip', this.#snapshot());
  }

  #makeDriftMonitor(): DriftMonitor {
    const { profile, exitProfile } = this.#profiles;
    const { gate, exit } = this.#control?.profiles ?? {};
    return new DriftMonitor(this.#options.window, { gate: profile ?? gate, exit: exitProfile ?? exit });
  }
}

/**
 * An observer for `InferenceSession.create`: a random share of the items is also run in full, at low
 * priority, and an anytime-valid test decides whether skipping changes more answers than promised. Emits
 * `trip` when it does (the session then runs in full until `rearm()`), and `drift` when gate scores move.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function watch(options?: WatchOptions): Watch {
  return new Watch(options);
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

/** Index of the largest element of the first float32 output. */
function answerOf(outputs: TensorMap): number {
  const logits = Object.values(outputs).find(({ type }) => type === 'float32')?.data as
    | Float32Array
    | undefined;
  return logits ? argMax(logits) : -1;
}
