import type {
  RunContext,
  RunEvent,
  RunObserver,
  SessionControl,
  SessionStats,
  TensorMap,
} from '../skip/observer.js';
import type { ItemDecisions, SkipTrace } from '../skip/trace.js';
import { copyData, type TensorData } from '../tensor/tensor.js';
import { warnOfObserver } from '../util/warnings.js';
import type { Contexts } from './contexts.js';
import type { PreparedRun, RunOutcome } from './run.js';

/** Number of arrays kept for later runs: what an observer holds at a time, and some more. */
const KEPT = 72;

/**
 * Copies of inputs, in reused memory: new memory is cleared and mapped page by page, which takes as long as a layer
 * for an image.
 */
export class InputCopies {
  readonly #free: TensorData[] = [];

  copy(data: TensorData): TensorData {
    // The array freed last is most likely in the cache.
    const at = this.#free.findLastIndex(
      (free) => free.constructor === data.constructor && free.length === data.length,
    );
    if (at < 0) return copyData(data);
    const [copy] = this.#free.splice(at, 1) as [TensorData];
    (copy as { set(from: TensorData): void }).set(data);
    return copy;
  }

  /** Allows later calls to overwrite `copies`. */
  reuse(copies: readonly TensorData[]): void {
    this.#free.push(...copies);
    this.#free.splice(0, this.#free.length - KEPT);
  }
}

interface EndedRun {
  /** Whether the inputs are copies that `copyInput` made. */
  readonly inputsKept: boolean;
  readonly outputs: TensorMap;
  readonly milliseconds: number;
  readonly outcome: RunOutcome;
}

/**
 * A class, because each object literal with a getter has its own hidden class, which outlives the object and keeps
 * what it holds.
 */
class ObservedRun implements RunEvent {
  constructor(
    readonly context: RunContext,
    readonly inputs: TensorMap,
    readonly inputsKept: boolean,
    readonly outputs: TensorMap,
    readonly items: number,
    readonly requests: RunEvent['requests'],
    readonly milliseconds: number,
    private readonly outcome: RunOutcome,
  ) {}

  get trace(): SkipTrace {
    return this.outcome.trace;
  }

  decisionsOf(item: number): ItemDecisions {
    return this.outcome.decisionsOf(item);
  }
}

/** A session's observers, and the copies of inputs that they still use. */
export class Notifier {
  readonly #observers: readonly RunObserver[];
  readonly #attached: RunObserver[] = [];
  readonly #contexts: Contexts;
  readonly #copies = new InputCopies();
  /** Inputs of runs that observers still use, by the promise that ends this. */
  readonly #held = new Map<Promise<unknown>, TensorData[]>();
  /** Whether copies may be reused once the observers' promises have settled. */
  readonly #givenBack: boolean;

  constructor(observers: readonly RunObserver[], contexts: Contexts) {
    this.#observers = [...observers];
    this.#contexts = contexts;
    this.#givenBack = this.#observers.every(({ keepsInputs }) => keepsInputs === false);
  }

  /** Whether no observer will read the results of a run. */
  get nobody(): boolean {
    return this.#observers.length === 0;
  }

  /** @throws the error of an observer that refuses the session */
  attach(controlFor: (observer: RunObserver) => SessionControl): void {
    for (const observer of this.#observers) {
      observer.onAttach?.(controlFor(observer));
      this.#attached.push(observer);
    }
  }

  /** Releases only attached observers: others may belong to another session. */
  async release(): Promise<void> {
    await notify(this.#attached, (observer) => observer.onRelease?.());
  }

  /** The statistics of each observer under its name; a number follows a name that is already taken. */
  stats(): SessionStats {
    const stats: Record<string, unknown> = {};
    for (const observer of this.#observers) {
      for (const [name, value] of Object.entries(observer.stats?.() ?? {})) {
        let key = name;
        for (let number = 2; Object.hasOwn(stats, key); number++) key = `${name}${number}`;
        stats[key] = value;
      }
    }
    return stats as SessionStats;
  }

  copyInput(data: TensorData): TensorData {
    return this.#copies.copy(data);
  }

  /** Notifies the observers of a successful run. */
  notify(call: PreparedRun, { inputsKept, outputs, milliseconds, outcome }: EndedRun): void {
    const { cached, request, feeds, policy, requests } = call;
    let going: Promise<unknown> | undefined;
    if (this.#observers.length > 0) {
      const context = this.#contexts.of(cached, policy);
      const event = new ObservedRun(
        context,
        feeds.tensors,
        inputsKept,
        outputs,
        request.items,
        requests,
        milliseconds,
        outcome,
      );
      going = notify(this.#observers, (observer) => observer.onRun?.(event));
    }
    if (!inputsKept || !this.#givenBack) return;
    if (going) this.#hold(request.inputs, going);
    else this.#copies.reuse(request.inputs);
  }

  #hold(inputs: readonly TensorData[], going: Promise<unknown>): void {
    const held = this.#held.get(going);
    if (held) {
      held.push(...inputs);
      return;
    }
    const fresh = [...inputs];
    this.#held.set(going, fresh);
    void going.then(() => {
      this.#held.delete(going);
      this.#copies.reuse(fresh);
    });
  }
}

const quiet = new WeakMap<Promise<void>, Promise<void>>();

/** A promise that settles when `going` does and turns a rejection into a warning; the same one for the same promise. */
function warned(going: Promise<void>): Promise<void> {
  const known = quiet.get(going);
  if (known) return known;
  const made = Promise.resolve(going).catch(warnOfObserver);
  quiet.set(going, made);
  return made;
}

/**
 * Calls each observer in order. Exceptions and rejections become warnings.
 * @returns a promise for the end of what they started; undefined if nothing was started
 */
export function notify(
  observers: readonly RunObserver[],
  call: (observer: RunObserver) => void | Promise<void>,
): Promise<unknown> | undefined {
  const pending: Promise<void>[] = [];
  for (const observer of observers) {
    try {
      const going = call(observer);
      if (going) pending.push(warned(going));
    } catch (error) {
      warnOfObserver(error);
    }
  }
  return pending.length > 1 ? Promise.all(pending) : pending[0];
}
