import { EventEmitter } from 'node:events';
import { ResidualSkipError } from '../errors.js';
import type { RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import { isVectorMetric, type Metric, maxLoss } from '../skip/promise.js';
import type { ItemTrace } from '../skip/trace.js';
import { Tensor } from '../tensor/tensor.js';
import { LruMap } from '../util/lru-map.js';
import { emitWarning, warnOfObserver } from '../util/warnings.js';
import { RateMonitor } from './confidence.js';
import { type Drift, DriftMonitor } from './drift-monitor.js';
import { hashAll, partsOf } from './hash.js';
import { shadowLoss, type Tested, testedBy } from './shadow-loss.js';
import { parseWatchOptions, type WatchOptions, type WatchStats } from './watch-options.js';

interface WatchEvents {
  /** The lower bound of the disagreement has exceeded the limit. */
  trip: [WatchStats];
  /** Scores or skip rates of at least one gate or exit have moved away from what is expected. */
  drift: [readonly Drift[]];
}

/** Most shadow items that may wait; further ones are dropped, so that a fast stream can't accumulate them. */
const MAX_WAITING = 16;

/** Items that are remembered, so that equal ones are left out. */
const MAX_CHECKED = 10_000;

/** Rates that can be tested: of a limit below them any loss is too much, and one above them is as good as none. */
const [MIN_RATE, MAX_RATE] = [1e-9, 0.999];

type Test = Tested & { readonly monitor: RateMonitor };

/** An observer that compares answers of items that skipped with those of the full network; see watch. */
export class Watch extends EventEmitter<WatchEvents> implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: ReturnType<typeof parseWatchOptions>;
  #tests: readonly [Test, ...Test[]];
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
    this.#options = parseWatchOptions(options);
    this.#driftMonitor = this.#makeDriftMonitor();
    this.#tests = this.#makeTests(testedBy(this.#options.maxDisagreement, undefined));
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
    const tested = testedBy(this.#options.maxDisagreement, control.promise);
    const named = (all: readonly Tested[]) => all.map(({ metric, limit }) => `${metric} ${limit}`).join();
    if (named(tested) !== named(this.#tests)) this.#tests = this.#makeTests(tested);
    if (tested[0].limit === null)
      this.#warn(
        "tests no promise: the policy's is about accuracy, which needs labels; give maxDisagreement to limit changed answers",
      );
  }

  onRun(event: RunEvent): void {
    const { context, trace, inputs, outputs } = event;
    const [{ metric }] = this.#tests;
    const { policy, promise } = this.#control ?? {};
    // A policy promises nothing of runs with another one.
    if (promise && this.#options.maxDisagreement === undefined && policy && context.policy !== policy) return;
    const own = promise?.metric === metric ? promise : undefined;
    const how = { custom: this.#options.loss, reader: this.#control?.answerReader?.() };
    const losses = this.#tests.map((test) => shadowLoss(test.metric, event, own, how));
    const testable = losses.every((loss) => loss !== undefined);
    if (!testable) this.#warn(`checks no answers: ${untestable(metric)}`);
    const count = trace.items.length;
    this.#items += count;
    for (const [item, itemTrace] of trace.items.entries()) {
      const closed = this.#driftMonitor.see(itemTrace);
      if (closed) this.#drift = closed.drift;
      if (closed && closed.moved.length > 0) this.#report('drift', closed.moved);
      // What is drawn or dropped must not depend on what the item did; otherwise the tested rate isn't the promised
      // one.
      if (!testable || this.#tripped || isTripped(itemTrace) || Math.random() >= this.#options.shadow)
        continue;
      if (this.#waiting >= MAX_WAITING) continue;
      if (this.#options.distinct && !this.#isNew(hashAll([partsOf(inputs, item, count)]))) continue;
      this.#waiting++;
      if (this.#control?.hasOriginal ? isGuarded(itemTrace) : ranInFull(itemTrace)) {
        this.#queue = this.#queue.then(() => this.#agree());
      } else {
        const feeds = itemOf(inputs, item, count);
        const answer = itemOf(outputs, item, count);
        this.#queue = this.#queue.then(() =>
          this.#check(feeds, (full) => losses.map((loss) => loss(answer, full, feeds))),
        );
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
    for (const { monitor } of this.#tests) monitor.rearm();
    this.#checked.clear();
    this.#tripped = false;
    this.#control?.setFullDepth(false);
  }

  stats(): { watch: WatchStats } {
    return { watch: this.#snapshot() };
  }

  #snapshot(): WatchStats {
    const [first, ...also] = this.#tests;
    const seen = ({ metric, limit, monitor: { events, lower, upper } }: Test) => {
      const max = maxLoss(metric);
      return {
        metric,
        limit,
        disagreements: max * events,
        disagreement: [max * lower, max * upper] as const,
      };
    };
    return {
      ...seen(first),
      ...(also.length > 0 && { also: also.map(seen) }),
      items: this.#items,
      checks: first.monitor.trials,
      armings: first.monitor.armings,
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
    if (this.#control) this.#observe(this.#tests.map(() => 0));
  }

  async #check(feeds: TensorMap, lossesOf: (full: TensorMap) => number[]): Promise<void> {
    let losses: number[];
    try {
      if (!this.#control) return;
      losses = lossesOf(await this.#control.runFull(feeds, 'low'));
    } catch (error) {
      // A session that is being released runs nothing more.
      if (!this.#control) return;
      this.#failures++;
      this.#warn(`couldn't check an item, and counts it among the failures: ${(error as Error).message}`);
      return;
    } finally {
      this.#waiting--;
    }
    this.#observe(losses);
  }

  /** Once, and not where nothing was to be checked. */
  #warn(what: string): void {
    if (this.#warned || this.#options.shadow === 0) return;
    this.#warned = true;
    emitWarning('OBSERVER', `watch() ${what}`);
  }

  /** A listener that throws must not prevent further observation. */
  #report<K extends keyof WatchEvents>(name: K, ...what: WatchEvents[K]): void {
    try {
      (this as EventEmitter).emit(name, ...what);
    } catch (error) {
      warnOfObserver(error);
    }
  }

  /** One shadow check: whether the answer with skipping differs from the full one. */
  observe(disagrees: boolean): void {
    this.#observe(this.#tests.map(({ metric }) => Number(disagrees) * maxLoss(metric)));
  }

  /** @param losses of an item, by each metric */
  #observe(losses: readonly number[]): void {
    for (const [i, { metric, monitor }] of this.#tests.entries())
      monitor.observe(losses[i]! / maxLoss(metric));
    if (this.#tripped || !this.#tests.some(({ limit, monitor }) => limit !== null && monitor.exceeded))
      return;
    this.#tripped = true;
    if (this.#options.onTrip === 'full') this.#control?.setFullDepth(true);
    this.#report('trip', this.#snapshot());
  }

  /** Several tests share the error budget equally, so that no false alarm is raised by any with the probability that was asked for. */
  #makeTests(tested: readonly [Tested, ...Tested[]]): readonly [Test, ...Test[]] {
    const alpha = (1 - this.#options.confidence) / tested.length;
    const [first, ...others] = tested.map(({ metric, limit }): Test => {
      const rate = (limit ?? MAX_RATE) / maxLoss(metric);
      return {
        metric,
        limit,
        monitor: new RateMonitor(Math.min(Math.max(rate, MIN_RATE), MAX_RATE), alpha),
      };
    });
    return [first!, ...others];
  }

  #makeDriftMonitor(): DriftMonitor {
    const { scores, exitScores, window } = this.#options;
    const { gate, exit } = this.#control?.expected ?? {};
    return new DriftMonitor(window, { gate: scores ?? gate, exit: exitScores ?? exit });
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
function isTripped({ inFull }: ItemTrace): boolean {
  return inFull === 'tripped';
}

/** Whether a guard has replaced the answer by that of the full network, or of the original. */
function isGuarded({ inFull }: ItemTrace): boolean {
  return inFull === 'guard';
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
