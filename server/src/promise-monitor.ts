import {
  type RunEvent,
  type RunObserver,
  type SessionControl,
  type TensorMap,
  type Watch,
  watch,
} from 'residual-skip';
import type { Setting } from './settings.js';

/** Report of a setting that changed more answers than it promises. */
export interface Trip {
  readonly setting: Setting;
  /** Number of items that also ran in full, and how many of their answers differed. */
  readonly checks: number;
  readonly disagreements: number;
}

/** Probability that no setting ever raises a false alarm. */
const CONFIDENCE = 0.95;

/**
 * Tests the promise of each setting separately: items that ran in full or in a more careful setting would hide the errors
 * of a bold one. A trip means that the images differ from those of the calibration, so no setting's promise holds.
 */
export class PromiseMonitor implements RunObserver {
  readonly keepsInputs = false;
  readonly watches: ReadonlyMap<Setting, Watch>;
  readonly #byPolicy: ReadonlyMap<unknown, Watch>;
  #control: SessionControl | undefined;
  #begun = false;

  private constructor(settings: readonly Setting[], shadow: number) {
    const confidence = 1 - (1 - CONFIDENCE) / settings.length;
    const watchOf = ({ promise }: Setting) =>
      watch({ shadow, confidence, maxDisagreement: promise!.limit, onTrip: 'warn' });
    this.watches = new Map(settings.map((setting) => [setting, watchOf(setting)]));
    this.#byPolicy = new Map([...this.watches].map(([{ policy }, one]) => [policy, one]));
  }

  /** Null if there is no promise to test. */
  static of(settings: readonly Setting[], shadow: number): PromiseMonitor | null {
    const promising = settings.filter(({ policy, promise }) => policy !== 'full' && isWatchable(promise));
    return shadow > 0 && promising.length > 0 ? new PromiseMonitor(promising, shadow) : null;
  }

  onTrip(listener: (trip: Trip) => void): void {
    for (const [setting, one] of this.watches) {
      one.on('trip', ({ checks, disagreements }) => listener({ setting, checks, disagreements }));
    }
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
    for (const one of this.watches.values()) one.onAttach(control);
  }

  /** Runs before this aren't tested. */
  begin(): void {
    this.#begun = true;
  }

  onRun(event: RunEvent): void {
    if (this.#begun) this.#byPolicy.get(event.context.policy)?.onRun(event);
  }

  async onRelease(): Promise<void> {
    await Promise.all([...this.watches.values()].map((one) => one.onRelease()));
  }
}

/** A run in full reveals changed answers, but not which answers are right. */
function isWatchable(promise: Setting['promise']): boolean {
  return promise?.metric === 'disagreement' && promise.limit > 0 && promise.limit < 1;
}
