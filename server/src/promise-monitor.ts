import { type RunEvent, type RunObserver, type SessionControl, type Watch, watch } from 'residual-skip';
import type { Setting } from './settings.js';

/** A setting that changed more answers than it promises. */
export interface Trip {
  readonly setting: Setting;
  /** Items that ran in full too, and how many of their answers differed. */
  readonly checks: number;
  readonly disagreements: number;
}

/** Probability that no setting raises a false alarm, ever. */
const CONFIDENCE = 0.95;

/**
 * Watches over the promise of each setting by itself: items that ran in full, or more carefully, would hide what a bold
 * setting does. A trip means that the images are not like those of the calibration, so that no setting's promise holds.
 */
export class PromiseMonitor implements RunObserver {
  readonly keepsInputs = false;
  readonly watches: ReadonlyMap<Setting, Watch>;
  readonly #byPolicy: ReadonlyMap<unknown, Watch>;

  private constructor(settings: readonly Setting[], shadow: number) {
    const confidence = 1 - (1 - CONFIDENCE) / settings.length;
    const watchOf = ({ promise }: Setting) =>
      watch({ shadow, confidence, maxDisagreement: promise!.limit, onTrip: 'warn' });
    this.watches = new Map(settings.map((setting) => [setting, watchOf(setting)]));
    this.#byPolicy = new Map([...this.watches].map(([{ policy }, one]) => [policy, one]));
  }

  /** Null where there is nothing to watch over. */
  static of(settings: readonly Setting[], shadow: number): PromiseMonitor | null {
    const promising = settings.filter(({ policy, promise }) => policy !== 'full' && isWatchable(promise));
    return shadow > 0 && promising.length > 0 ? new PromiseMonitor(promising, shadow) : null;
  }

  onTrip(listener: (trip: Trip) => void): void {
    for (const [setting, one] of this.watches) {
      one.on('trip', ({ checks, disagreements }) => listener({ setting, checks, disagreements }));
    }
  }

  onAttach(control: SessionControl): void {
    for (const one of this.watches.values()) one.onAttach(control);
  }

  onRun(event: RunEvent): void {
    this.#byPolicy.get(event.context.policy)?.onRun(event);
  }

  async onRelease(): Promise<void> {
    await Promise.all([...this.watches.values()].map((one) => one.onRelease()));
  }
}

/** What is run in full shows changed answers; it doesn't show which of them were right. */
function isWatchable(promise: Setting['promise']): boolean {
  return promise?.metric === 'disagreement' && promise.limit > 0 && promise.limit < 1;
}
