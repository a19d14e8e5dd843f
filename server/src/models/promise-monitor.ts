import {
  type ItemRequest,
  type RunEvent,
  type RunObserver,
  type SessionControl,
  Tensor,
  type TensorMap,
  type Watch,
  watch,
} from 'residual-skip';
import type { Setting } from './settings.js';

/** Report of a setting that changed more answers than it promises, or did so no longer. */
export interface Evidence {
  /** Of the clients whose items show it; '' for those without a group. */
  readonly group: string;
  readonly setting: Setting;
  /** Number of different items that also ran in full, and how many of their answers differed. */
  readonly checks: number;
  readonly disagreements: number;
}

/** A request whose client belongs to a group. All items of a run are of one group. */
export interface GroupedRequest extends ItemRequest {
  readonly group: string;
  /** Of a run in a setting on trial, of which no answer is sent. */
  readonly trial?: boolean;
}

/** Runs an item in a setting, seen by the session's observers. */
export type RunIn = (setting: Setting, feeds: TensorMap, request: GroupedRequest) => Promise<unknown>;

/** Probability that no setting ever raises a false alarm. */
const CONFIDENCE = 0.95;
/** Items on trial that may wait. */
const MAX_TRIALS = 16;

interface MonitorOptions {
  /** Share of the items that also run in full. */
  readonly shadow: number;
  /** Share of answers that settings may change whose promise only labels could test; undefined leaves them alone. */
  readonly maxDisagreement?: number | undefined;
}

/** A setting that has tripped and runs again on a share of the items, of which no answer is sent. */
interface Trial {
  readonly setting: Setting;
  readonly watch: Watch;
  waiting: number;
}

/**
 * Tests promises for each group of clients by itself: a camera whose images differ from those of the calibration says nothing about
 * those of others.
 */
export class PromiseMonitor implements RunObserver {
  readonly keepsInputs = false;
  readonly #settings: readonly Setting[];
  readonly #options: MonitorOptions;
  readonly #groups = new Map<string, GroupMonitor>();
  #control: SessionControl | undefined;
  #begun = false;
  #onTrip: (trip: Evidence) => void = () => {};
  #onRearm: (evidence: Evidence) => void = () => {};

  private constructor(settings: readonly Setting[], options: MonitorOptions) {
    this.#settings = settings;
    this.#options = options;
    this.#of('');
  }

  /** Null if there is no promise to test. */
  static of(settings: readonly Setting[], options: MonitorOptions): PromiseMonitor | null {
    const testable = settings.filter(({ policy, promise }) => {
      if (policy === 'full' || promise === null) return false;
      // A run in full reveals changed answers, but not which answers are right.
      return promise.metric !== 'accuracy' || options.maxDisagreement !== undefined;
    });
    return options.shadow > 0 && testable.length > 0 ? new PromiseMonitor(testable, options) : null;
  }

  /** What tests each setting for the clients without a group. */
  get watches(): ReadonlyMap<Setting, Watch> {
    return this.#of('').watches;
  }

  /** By group, what tests the setting for its clients. */
  watchesOf(setting: Setting): [group: string, watch: Watch][] {
    return [...this.#groups].flatMap(([group, { watches }]) => {
      const own = watches.get(setting);
      return own ? [[group, own]] : [];
    });
  }

  onTrip(listener: (trip: Evidence) => void): void {
    this.#onTrip = listener;
  }

  /** `listener` is called when the promises hold again after a trip. */
  onRearm(listener: (evidence: Evidence) => void): void {
    this.#onRearm = listener;
  }

  /** Whether promises are about the answers of another network, which `runOriginal` runs. */
  get hasOriginal(): boolean {
    return this.#control?.hasOriginal === true;
  }

  runOriginal(feeds: TensorMap): Promise<TensorMap> {
    return this.#control!.runFull(feeds);
  }

  onAttach(control: SessionControl): void {
    this.#control = control;
    for (const group of this.#groups.values()) group.attach(control);
  }

  /** Runs before this aren't tested. */
  begin(): void {
    this.#begun = true;
  }

  onRun(event: RunEvent): void {
    if (!this.#begun) return;
    const [request] = event.requests ?? [];
    this.#of((request as GroupedRequest | undefined)?.group ?? '').onRun(event);
  }

  /** After a trip of the group, a share of its items that were answered in full also runs in the setting on trial. */
  try(group: string, feeds: TensorMap, items: number, runIn: RunIn): void {
    const request = { caller: '', id: '', group, trial: true };
    this.#of(group).try(feeds, items, (setting, item) => runIn(setting, item, request));
  }

  async onRelease(): Promise<void> {
    await Promise.all([...this.#groups.values()].map((group) => group.release()));
  }

  #of(group: string): GroupMonitor {
    let known = this.#groups.get(group);
    if (!known) {
      known = new GroupMonitor(this.#settings, this.#options, {
        trip: (evidence) => this.#onTrip({ group, ...evidence }),
        rearm: (evidence) => this.#onRearm({ group, ...evidence }),
      });
      if (this.#control) known.attach(this.#control);
      this.#groups.set(group, known);
    }
    return known;
  }
}

interface Listeners {
  trip(evidence: Omit<Evidence, 'group'>): void;
  rearm(evidence: Omit<Evidence, 'group'>): void;
}

/**
 * Tests the promise of each setting separately: items that ran in full or in a more careful setting would hide the errors
 * of a bold one. A trip means that the images differ from those of the calibration, so no setting's promise holds. Then the setting is on
 * trial: once its losses are below the promise with confidence, the promises hold again. Equal items count once.
 */
class GroupMonitor {
  readonly watches: ReadonlyMap<Setting, Watch>;
  readonly #byPolicy: Map<unknown, Watch>;
  readonly #options: MonitorOptions;
  readonly #confidence: number;
  readonly #listeners: Listeners;
  #control: SessionControl | undefined;
  #trial: Trial | undefined;

  constructor(settings: readonly Setting[], options: MonitorOptions, listeners: Listeners) {
    this.#options = options;
    this.#listeners = listeners;
    this.#confidence = 1 - (1 - CONFIDENCE) / settings.length;
    this.watches = new Map(settings.map((setting) => [setting, this.#watchOf(setting, options.shadow)]));
    this.#byPolicy = new Map([...this.watches].map(([{ policy }, one]) => [policy, one]));
    for (const [setting, one] of this.watches) {
      one.on('trip', ({ checks, disagreements }) => {
        if (!this.#trial) this.#try(setting);
        listeners.trip({ setting, checks, disagreements });
      });
    }
  }

  attach(control: SessionControl): void {
    this.#control = control;
    for (const [{ policy }, one] of this.watches) one.onAttach(controlFor(policy, control));
  }

  onRun(event: RunEvent): void {
    this.#byPolicy.get(event.context.policy)?.onRun(event);
  }

  try(
    feeds: TensorMap,
    items: number,
    runIn: (setting: Setting, feeds: TensorMap) => Promise<unknown>,
  ): void {
    const trial = this.#trial;
    if (!trial) return;
    for (let item = 0; item < items; item++) {
      if (Math.random() >= this.#options.shadow || trial.waiting >= MAX_TRIALS) continue;
      trial.waiting++;
      void runIn(trial.setting, itemOf(feeds, item, items))
        .then(() => trial.watch.settled())
        .then(() => this.#compare(trial))
        // A session that is being released runs nothing more.
        .catch(() => {})
        .finally(() => {
          trial.waiting--;
        });
    }
  }

  async release(): Promise<void> {
    const all = [...this.watches.values(), ...(this.#trial ? [this.#trial.watch] : [])];
    await Promise.all(all.map((one) => one.onRelease()));
  }

  #watchOf({ promise }: Setting, shadow: number): Watch {
    const { maxDisagreement } = this.#options;
    return watch({
      ...{ shadow, confidence: this.#confidence, distinct: true, onTrip: 'warn' },
      ...(promise?.metric === 'accuracy' && { maxDisagreement }),
    });
  }

  #try(setting: Setting): void {
    // What is to be tried is a share already.
    const one = this.#watchOf(setting, 1);
    one.onAttach(controlFor(setting.policy, this.#control!));
    one.on('trip', () => one.rearm());
    this.#byPolicy.set(setting.policy, one);
    this.#trial = { setting, watch: one, waiting: 0 };
  }

  #compare({ setting, watch: one }: Trial): void {
    const { checks, disagreements, disagreement, limit } = one.stats().watch;
    if (this.#trial?.watch !== one || limit === null || disagreement[1] > limit) return;
    this.#trial = undefined;
    for (const [{ policy }, own] of this.watches) {
      own.rearm();
      this.#byPolicy.set(policy, own);
    }
    this.#listeners.rearm({ setting, checks, disagreements });
  }
}

/** A watch tests what the policy of its session promises: this one's is that of a setting. */
function controlFor(policy: Setting['policy'], control: SessionControl): SessionControl {
  return typeof policy === 'object' ? { ...control, policy, promise: policy.promise } : control;
}

/** A copy of one item of a batch, since requests' memory is used again. */
function itemOf(feeds: TensorMap, item: number, items: number): TensorMap {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, { type, data, dims }]) => {
      const each = data.length / items;
      const part = data.slice(item * each, (item + 1) * each) as Float32Array;
      return [name, new Tensor(type as 'float32', part, items === 1 ? dims : [1, ...dims.slice(1)])];
    }),
  );
}
