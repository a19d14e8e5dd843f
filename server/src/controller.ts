/** What the controller sees of one model and of the queue at a moment. */
export interface Load {
  /** Milliseconds, a monotonic clock. */
  readonly now: number;
  /** Jobs that wait. */
  readonly queued: number;
  /** How long the oldest of them has waited, in milliseconds. */
  readonly ageMs: number;
  /** 99th percentile of the time of the requests that ended lately, in milliseconds; NaN where none did. */
  readonly p99Ms: number;
  /** Items that ended in the last second. */
  readonly itemsPerSecond: number;
  /** Mean compute time of one item in the setting with this index, in milliseconds; undefined before it was measured. */
  readonly itemMs: (setting: number) => number | undefined;
  /** Threads of the engine. */
  readonly threads: number;
}

export interface ControllerOptions {
  /** Latency that 99 % of the requests should keep, queue and compute together, in milliseconds. */
  readonly targetP99Ms?: number;
  /** Or the queue length above which a bolder setting is taken. */
  readonly targetQueue?: number;
}

/** A bolder setting is taken when the latency reaches this share of the target: some must be left to react in. */
const ALARM = 0.6;
/** A more careful one only when its utilisation of the threads would be at most this, ... */
const CALM_UTILISATION = 0.7;
/** ... and the alarm has been silent for so long, in milliseconds; doubled by each step back that had to be undone. */
const CALM_MS = 1000;
const LONGEST_CALM_MS = 30_000;
/** Time that a new setting gets to show its effect, in milliseconds. */
const SETTLE_MS = 100;

/**
 * Chooses how deep a model runs: one step bolder while the target is in danger, one step back when a more careful setting
 * would bear the load with room to spare. The two thresholds lie apart, so that the setting doesn't flutter; where it does
 * all the same, the way back becomes slower.
 */
export class DepthController {
  readonly #options: ControllerOptions;
  #setting: number;
  #changed = Number.NEGATIVE_INFINITY;
  #alarmed = Number.NEGATIVE_INFINITY;
  #returned = Number.NEGATIVE_INFINITY;
  #calmMs = CALM_MS;

  /** @param setting index of the setting to begin with; 0 is full depth */
  constructor(options: ControllerOptions, setting = 0) {
    this.#options = options;
    this.#setting = setting;
  }

  get setting(): number {
    return this.#setting;
  }

  /**
   * @param boldest index of the boldest setting that is allowed now
   * @returns the index of the setting to run with from now on, and why it changed
   */
  tick(load: Load, boldest: number): { readonly setting: number; readonly reason: string | null } {
    if (this.#setting > boldest) return this.#move(boldest, load.now, 'a bolder setting is not allowed');
    const danger = this.#danger(load);
    if (danger) this.#alarmed = load.now;
    if (load.now - this.#changed < SETTLE_MS) return this.#stay();
    if (danger && this.#setting < boldest) {
      const undone = load.now - this.#returned < 2 * this.#calmMs;
      this.#calmMs = undone ? Math.min(LONGEST_CALM_MS, 2 * this.#calmMs) : CALM_MS;
      return this.#move(this.#setting + 1, load.now, danger);
    }
    if (this.#setting === 0 || load.now - Math.max(this.#alarmed, this.#changed) < this.#calmMs)
      return this.#stay();
    const utilisation = this.#utilisationAt(this.#setting - 1, load);
    if (utilisation > CALM_UTILISATION) return this.#stay();
    this.#returned = load.now;
    return this.#move(
      this.#setting - 1,
      load.now,
      `${Math.round(100 * utilisation)} % of the threads would be enough`,
    );
  }

  #danger({ queued, ageMs, p99Ms, threads, itemMs }: Load): string | null {
    const { targetP99Ms, targetQueue } = this.#options;
    if (targetQueue !== undefined && queued > targetQueue) return `${queued} requests wait`;
    if (targetP99Ms === undefined) return null;
    const alarm = ALARM * targetP99Ms;
    const expected = ((queued + 1) * (itemMs(this.#setting) ?? 0)) / threads;
    const worst = Math.max(ageMs, expected);
    if (worst > alarm) return `a request waits ${worst.toFixed(1)} ms`;
    return p99Ms > alarm ? `the 99th percentile is ${p99Ms.toFixed(1)} ms` : null;
  }

  /** Share of the threads that the load would take in another setting; what was never measured is taken as in this one. */
  #utilisationAt(setting: number, { itemsPerSecond, itemMs, threads }: Load): number {
    const each = itemMs(setting) ?? itemMs(this.#setting) ?? 0;
    return (itemsPerSecond * each) / 1000 / threads;
  }

  #move(setting: number, now: number, reason: string) {
    this.#setting = setting;
    this.#changed = now;
    return { setting, reason };
  }

  #stay() {
    return { setting: this.#setting, reason: null };
  }
}
