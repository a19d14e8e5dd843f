/** State of one model and of the queue at one moment, as the controller sees it. */
export interface Load {
  /** Milliseconds of a monotonic clock. */
  readonly now: number;
  /** Number of waiting jobs. */
  readonly queued: number;
  /** How long the oldest job has waited, in milliseconds. */
  readonly ageMs: number;
  /** 99th percentile of the latency of recent requests, in milliseconds; NaN if there are none. */
  readonly p99Ms: number;
  /** Items completed per second, recently. */
  readonly itemsPerSecond: number;
  /** Number of items of the largest recent request. */
  readonly maxItems: number;
  /** Mean compute time per item in the setting with this index, in milliseconds; undefined before it is measured. */
  readonly itemMs: (setting: number) => number | undefined;
  /** Number of calls that the engine has at a time. Under load it completes as many items in the time of each. */
  readonly calls: number;
}

export interface ControllerOptions {
  /** Target for the 99th percentile of the latency (queue and compute), in milliseconds. */
  readonly targetP99Ms?: number;
  /** Or the queue length above which the model switches to a bolder setting. */
  readonly targetQueue?: number;
}

/** The model gets one step bolder when the latency reaches this share of the target, which leaves time to react, ... */
const ALARM = 0.4;
/** ... and at once as bold as allowed when it reaches this share. */
const EMERGENCY = 0.8;
/** It gets more careful, by one step, only if the threads' utilisation would then be at most this, ... */
const CALM_UTILISATION = 0.7;
/** ... if there was no alarm for this many milliseconds, doubled each time a change back had to be undone, ... */
const CALM_MS = 1000;
const LONGEST_CALM_MS = 30_000;
/** ... and if the load is below this share of that which was too much for it, unless that was LONGEST_CALM_MS ago. */
const CALM_RATE = 0.85;
/** The load has gone, as far as a setting is concerned, if the threads' utilisation in it would be at most this ... */
const IDLE_UTILISATION = 0.35;
/** ... or if the load is below this share of that which was too much for it. The model returns to it after CALM_MS. */
const GONE_RATE = 0.5;
/** Idle threads need no bolder setting for a latency of more than this many times the run: something else held it up. */
const STALLED_RUNS = 3;
/** Milliseconds before the effect of a new setting is looked at. */
const SETTLE_MS = 100;

/**
 * Chooses how deep a model runs: bolder while the target is at risk, one step back when a more careful setting could carry
 * the load with a margin, and at once to full depth when the load has gone. The gap between the two
 * thresholds (hysteresis) keeps the setting from oscillating. If it oscillates anyway, steps back become slower.
 */
export class DepthController {
  readonly #options: ControllerOptions;
  #setting: number;
  #changed = Number.NEGATIVE_INFINITY;
  #alarmed = Number.NEGATIVE_INFINITY;
  /** The last change to a more careful setting, and whether the load was near what that bears or had gone. */
  #returned: { readonly at: number; readonly load: 'near' | 'gone' } = {
    at: Number.NEGATIVE_INFINITY,
    load: 'near',
  };
  /** How long there must be no alarm before the next such change. */
  readonly #calmMs = { near: CALM_MS, gone: CALM_MS };
  /** By setting: when it was last left because the target was at risk, and the items per second at that time. */
  readonly #failed: ({ readonly at: number; readonly itemsPerSecond: number } | undefined)[] = [];

  /** @param setting index of the initial setting; 0 is full depth */
  constructor(options: ControllerOptions, setting = 0) {
    this.#options = options;
    this.#setting = setting;
  }

  get setting(): number {
    return this.#setting;
  }

  /**
   * @param boldest index of the boldest setting allowed now
   * @returns the index of the setting to use from now on, and the reason if it changed
   */
  tick(load: Load, boldest: number): { readonly setting: number; readonly reason: string | null } {
    if (this.#setting > boldest) return this.#move(boldest, load.now, 'a bolder setting is not allowed');
    const { now, itemsPerSecond } = load;
    const danger = this.#danger(load, ALARM);
    if (danger) this.#alarmed = now;
    if (now - this.#changed < SETTLE_MS) return this.#stay();
    if (danger && this.#setting < boldest) {
      const returned = this.#returned;
      const waited = this.#calmMs[returned.load];
      const undone = now - returned.at < 2 * waited;
      this.#calmMs[returned.load] = undone ? Math.min(LONGEST_CALM_MS, 2 * waited) : CALM_MS;
      // A load that came suddenly has completed few items so far.
      this.#failed[this.#setting] = {
        at: now,
        itemsPerSecond: Math.max(itemsPerSecond, this.#idleRate(load)),
      };
      return this.#move(this.#danger(load, EMERGENCY) ? boldest : this.#setting + 1, now, danger);
    }
    if (this.#setting === 0) return this.#stay();
    const gone = Array.from({ length: this.#setting }, (_, i) => i).find((i) => this.#hasGone(i, load));
    const kind = gone === undefined ? 'near' : 'gone';
    if (now - Math.max(this.#alarmed, this.#changed) < this.#calmMs[kind]) return this.#stay();
    const next = gone ?? this.#setting - 1;
    const failed = this.#failed[next];
    const forgotten = !failed || now - failed.at > LONGEST_CALM_MS;
    if (!forgotten && itemsPerSecond > CALM_RATE * failed.itemsPerSecond) return this.#stay();
    const utilisation = this.#utilisationAt(next, load);
    // What an item took in full is known from times of load only, when threads waited for cores.
    if (kind === 'near' && utilisation > CALM_UTILISATION) return this.#stay();
    this.#returned = { at: now, load: kind };
    const reason =
      kind === 'gone'
        ? 'the load has gone'
        : `${Math.round(100 * utilisation)} % of the threads would be enough`;
    return this.#move(next, now, reason);
  }

  /** Whether the load is far below what this setting bears, as far as is known of it. */
  #hasGone(setting: number, load: Load): boolean {
    const { itemsPerSecond, itemMs } = load;
    const failed = this.#failed[setting];
    if (failed && itemsPerSecond <= GONE_RATE * failed.itemsPerSecond) return true;
    return itemMs(setting) !== undefined && this.#utilisationAt(setting, load) <= IDLE_UTILISATION;
  }

  /** Items per second that leave the threads nearly idle in the current setting; 0 if it was never measured. */
  #idleRate({ calls, itemMs }: Load): number {
    const each = itemMs(this.#setting);
    return each ? (IDLE_UTILISATION * 1000 * calls) / each : 0;
  }

  /** What puts the target at risk, if the latency is above this share of it. */
  #danger(load: Load, share: number): string | null {
    const { queued, ageMs, p99Ms, itemsPerSecond, calls, maxItems, itemMs } = load;
    const { targetP99Ms, targetQueue } = this.#options;
    if (targetQueue !== undefined && queued > (targetQueue * share) / ALARM) return `${queued} requests wait`;
    if (targetP99Ms === undefined) return null;
    const alarm = share * targetP99Ms;
    const each = itemMs(this.#setting) ?? 0;
    const worst = Math.max(ageMs, ((queued + 1) * each) / calls);
    if (worst > alarm) return `a request waits ${worst.toFixed(1)} ms`;
    const stalled = alarm > STALLED_RUNS * maxItems * each && itemsPerSecond <= this.#idleRate(load);
    return p99Ms > alarm && !stalled ? `the 99th percentile is ${p99Ms.toFixed(1)} ms` : null;
  }

  /** The threads' utilisation in another setting; a setting that was never measured counts as fast as the current one. */
  #utilisationAt(setting: number, { itemsPerSecond, itemMs, calls }: Load): number {
    const each = itemMs(setting) ?? itemMs(this.#setting) ?? 0;
    return (itemsPerSecond * each) / 1000 / calls;
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
