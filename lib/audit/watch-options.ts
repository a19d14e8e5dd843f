import { z } from 'zod';
import type { Metric } from '../skip/promise.js';
import type { CustomLoss } from '../skip/run-loss.js';
import { distributionSchema, type ScoreDistributions } from '../skip/score-distribution.js';
import { late } from '../util/late.js';
import { parseStrict } from '../util/validation.js';
import type { Drift } from './drift-monitor.js';

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
   * Distributions of gates' scores to compare with, by block. By default those from the calibration of the session's policy, otherwise the
   * first `window` items of the stream.
   */
  scores?: ScoreDistributions | undefined;
  /** The same for the scores of early exits, by the exit's block. */
  exitScores?: ScoreDistributions | undefined;
  /** Items in one window of drift detection; 500 by default. */
  window?: number | undefined;
  /** The loss of an item, 0 to 1, for a policy that promises the metric `custom`: the function that it was calibrated with. */
  loss?: CustomLoss | undefined;
}

/** What a monitor has seen. */
export interface WatchStats {
  /** Items that it has seen; those of runs with a policy of their own only if it doesn't test the session's promise. */
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
  /** The same of the other metrics that the policy promises. Each is tested with an equal share of the error budget. */
  readonly also?: readonly Pick<WatchStats, 'metric' | 'limit' | 'disagreements' | 'disagreement'>[];
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

const share = late(() => z.number().gt(0).lt(1));
const optionsSchema = late(() =>
  z.strictObject({
    shadow: z.number().min(0).max(1).optional(),
    maxDisagreement: share().optional(),
    confidence: share().optional(),
    distinct: z.boolean().optional(),
    onTrip: z.enum(['full', 'warn']).optional(),
    scores: z.record(z.string(), distributionSchema()).optional(),
    exitScores: z.record(z.string(), distributionSchema()).optional(),
    window: z.int().min(50).optional(),
    loss: z
      .custom<CustomLoss>((value) => typeof value === 'function', { error: 'expected a function' })
      .optional(),
  }),
);

/** @throws ResidualSkipError INVALID_ARGUMENT */
export function parseWatchOptions(options: WatchOptions) {
  const parsed = parseStrict(optionsSchema(), options, { subject: 'watch options' });
  const defaults = { shadow: 0.01, confidence: 0.95, distinct: false, onTrip: 'full', window: 500 } as const;
  return { ...defaults, ...parsed };
}
