/**
 * Anytime-valid inference on the rate of a binary event, from the number of events so far: the result may be checked
 * after every observation, and the test stopped at any time, without losing the guarantee.
 *
 * Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the
 * Royal Statistical Society B, 2023. For a binary event a bet against "the rate is m" is a likelihood ratio of an
 * alternative above m; a mixture of such bets is a supermartingale whenever the true rate is at most m, so by Ville's
 * inequality it ever reaches 1/alpha with probability at most alpha.
 *
 * A loss x between 0 and 1 counts as x events and 1 - x others. A bet multiplies the capital by a + x (b - a), which is at least
 * a^(1 - x) b^x because the logarithm is concave; so the capital is never overestimated, and everything holds for mean losses as well.
 */
import { sigmoid } from '../numeric/softmax.js';

/** Alternatives that the mixture bets on, evenly spaced in log-odds between the rate tested and almost 1. */
const ALTERNATIVES = 48;
const HIGHEST_LOG_ODDS = 7;

const logOdds = (p: number) => Math.log(p / (1 - p));

/** Logarithms of the factors by which one event and one non-event multiply each bet. */
interface Bets {
  readonly event: Float64Array;
  readonly none: Float64Array;
}

function betsAgainst(rate: number): Bets {
  const low = logOdds(rate);
  const step = (HIGHEST_LOG_ODDS - low) / ALTERNATIVES;
  const alternatives = Float64Array.from({ length: ALTERNATIVES }, (_, j) => sigmoid(low + (j + 1) * step));
  return {
    event: alternatives.map((alternative) => Math.log(alternative / rate)),
    none: alternatives.map((alternative) => Math.log((1 - alternative) / (1 - rate))),
  };
}

function mixture({ event, none }: Bets, events: number, trials: number): number {
  const terms = event.map((gain, j) => events * gain + (trials - events) * none[j]!);
  const top = Math.max(...terms);
  return top + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - top), 0) / ALTERNATIVES);
}

/**
 * Logarithm of the evidence against "the rate is at most `rate`" after `events` in `trials`.
 * @param rate in (0, 1)
 */
export function logEvidence(events: number, trials: number, rate: number): number {
  return mixture(betsAgainst(rate), events, trials);
}

/**
 * Lower end of the confidence sequence at level 1 - alpha: with that probability the true rate is never
 * below it, at any time. 0 before the first event.
 */
export function lowerBound(events: number, trials: number, alpha: number): number {
  if (events === 0) return 0;
  const needed = Math.log(1 / alpha);
  let [low, high] = [1e-9, Math.min(events / trials, 1 - 1e-6)];
  if (logEvidence(events, trials, low) < needed) return 0;
  for (let i = 0; i < 50; i++) {
    const middle = Math.sqrt(low * high);
    if (logEvidence(events, trials, middle) >= needed) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Likewise the upper end: one minus the lower end for the complementary event. Both ends hold together at level 1 - 2
 * * alpha.
 */
export function upperBound(events: number, trials: number, alpha: number): number {
  return trials === 0 ? 1 : 1 - lowerBound(trials - events, trials, alpha);
}

/**
 * Tests "the rate is at most `limit`" after every observation. It can be rearmed: arming number k begins without
 * evidence and raises a false alarm with probability at most alpha / (k (k + 1)). The sum over all k is alpha, so by
 * the union bound there is never a false alarm with probability at least 1 - alpha.
 */
export class RateMonitor {
  #armings = 1;
  #events = 0;
  #trials = 0;
  #exceeded = false;
  readonly #bets: Bets;

  /**
   * @param limit the rate that is still acceptable, in (0, 1)
   * @param alpha probability of ever raising a false alarm, over all armings
   */
  constructor(
    readonly limit: number,
    readonly alpha: number,
  ) {
    this.#bets = betsAgainst(limit);
  }

  /** Number of armings: 1 until the first `rearm`. */
  get armings(): number {
    return this.#armings;
  }
  /** The share of `alpha` that this arming may spend. */
  get spent(): number {
    return this.alpha / (this.#armings * (this.#armings + 1));
  }
  get events(): number {
    return this.#events;
  }
  get trials(): number {
    return this.#trials;
  }
  /** True once the lower bound has exceeded the limit; stays true until `rearm`. */
  get exceeded(): boolean {
    return this.#exceeded;
  }
  /** Bounds of the rate; each holds alone with probability 1 - `spent`. */
  get lower(): number {
    return lowerBound(this.#events, this.#trials, this.spent);
  }
  get upper(): number {
    return upperBound(this.#events, this.#trials, this.spent);
  }

  /** @param loss whether there was an event, or a loss in [0, 1] */
  observe(loss: number | boolean): void {
    this.#trials++;
    // Only a loss adds evidence, so the alarm can only begin with one.
    if (!loss) return;
    this.#events += Number(loss);
    this.#exceeded ||= mixture(this.#bets, this.#events, this.#trials) >= Math.log(1 / this.spent);
  }

  /** Discards the evidence and begins the next arming. */
  rearm(): void {
    this.#armings++;
    this.#events = 0;
    this.#trials = 0;
    this.#exceeded = false;
  }
}
