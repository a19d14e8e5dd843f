/**
 * P-values for "the risk is above epsilon", and bounds on a rate, from finitely many losses. All are exact or
 * conservative for every sample size; none is an approximation by the normal distribution.
 */

const { abs, ceil, exp, log, log1p, max, min, sqrt } = Math;

/**
 * P-value of "the expected 0/1 loss is above p" after `k` losses of 1 in `n`: the exact binomial tail P(Bin(n, p) <= k), summed
 * term by term from the smallest, in logarithms: exact to rounding.
 * @param k integer; below 0 the probability is 0, from n on it is 1
 */
export function binomialPValue(k: number, n: number, p: number): number {
  if (k < 0) return 0;
  if (k >= n || p <= 0) return 1;
  if (p >= 1) return 0;
  const odds = Math.log(p) - Math.log1p(-p);
  let term = n * Math.log1p(-p);
  const terms = [term];
  for (let i = 0; i < k; i++) {
    term += Math.log((n - i) / (i + 1)) + odds;
    terms.push(term);
  }
  const top = terms.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return Math.min(1, Math.exp(top) * terms.reduce((sum, t) => sum + Math.exp(t - top), 0));
}

/**
 * P-value of "the expected loss is above epsilon" for independent losses in [0, 1]: by betting against it, one loss after the other.
 * If it were true, the capital would be a supermartingale, which reaches 1/p with a probability of at most p (Ville's inequality).
 * The stakes follow the variance of the losses before, so that losses that differ little certify much more than their number
 * alone. They are best for `delta`, and valid for any.
 * Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"; with these stakes, Bates et al.
 * 2021, "Distribution-free, risk-controlling prediction sets", proposition 5.
 * @param losses in an order that doesn't depend on them
 */
export function bettingPValue(losses: readonly number[], epsilon: number, delta: number): number {
  const goal = (2 * log(1 / delta)) / losses.length;
  let [capital, highest] = [0, 0];
  let [sum, squares] = [0.5, 0.25];
  for (const [i, loss] of losses.entries()) {
    const stake = min(1, sqrt((goal * (i + 1)) / squares));
    capital += log1p(stake * (epsilon - loss));
    highest = max(highest, capital);
    sum += loss;
    squares += (loss - sum / (i + 2)) ** 2;
  }
  return exp(-highest);
}

/**
 * The same by the inequalities of Hoeffding and Bentkus, which know the number of items and the sum of their losses alone.
 * Source: Bates et al. 2021, as above, section 3.1; Hoeffding 1963, theorem 1; Bentkus 2004, theorem 1.
 */
export function hoeffdingBentkusPValue(losses: readonly number[], epsilon: number): number {
  const items = losses.length;
  const sum = losses.reduce((total, loss) => total + loss, 0);
  const mean = min(sum / max(1, items), epsilon);
  const gap = (mean > 0 ? mean * log(mean / epsilon) : 0) + (1 - mean) * (log1p(-mean) - log1p(-epsilon));
  // Rounding mustn't make a whole sum a smaller one.
  const events = ceil(sum * (1 + 1e-12));
  return min(exp(-items * gap), Math.E * binomialPValue(events, items, epsilon));
}

/**
 * P-value of "the expected loss is above epsilon" for independent losses in [0, 1]: by betting, or by Hoeffding's and Bentkus's
 * inequalities where there are so few items that betting couldn't certify epsilon at `delta` if none had any loss. Nothing else decides, so
 * that it is a p-value in either case.
 */
export function boundedPValue(losses: readonly number[], epsilon: number, delta: number): number {
  const none = losses.map(() => 0);
  if (bettingPValue(none, epsilon, delta) <= delta) return bettingPValue(losses, epsilon, delta);
  return hoeffdingBentkusPValue(losses, epsilon);
}

/** How items fared against the full network: right answers that were lost, and wrong ones that became right. */
export interface Changes {
  readonly lost: number;
  readonly gained: number;
  readonly items: number;
}

/** Share of the error that bounds how many items change, in netPValue. */
const NUISANCE = 0.1;

/**
 * P-value of "the expected net loss, P(lost) - P(gained), is above epsilon". The least favourable way to be there is the one with
 * most changes, of which an upper bound at level `beta` = `delta` / 10 is known; with it the exact tail of lost - gained is a p-value
 * once beta is added (Berger and Boos 1994, "P values maximized over a confidence set for the nuisance parameter").
 *
 * That the tail P(lost - gained <= t) rises with the rate w of changes: its derivative is n / 2 times P(T = t + 1) - P(T = t), for
 * the sum T of n - 1 items. For w <= 1/2 the generating function of an item has real roots only, so that T is, but for a constant, a
 * sum of independent Bernoulli variables: unimodal, with its mode less than 1 from its mean (n - 1) epsilon (Darroch 1964). Up to
 * t = (n - 1) epsilon - 2 the tail rises, and beyond this the p-value is 1.
 * @returns beta or more: it is meant to be compared with `delta`
 */
export function netPValue(changes: Changes, epsilon: number, delta: number): number {
  const { lost, gained, items } = changes;
  if (epsilon >= 1) return 0;
  if (lost - gained > (items - 1) * epsilon - 2) return 1;
  const beta = NUISANCE * delta;
  const rate = max(epsilon, upperRate(lost + gained, items, beta));
  return rate > 0.5 ? 1 : min(1, beta + netTail(lost - gained, items, epsilon, rate));
}

/**
 * P(lost - gained <= t) in `n` items, which are lost with probability (rate + epsilon) / 2 and gained with (rate - epsilon) / 2: the sum
 * over the number m of changes of Bin(m; n, rate) P(Bin(m, share) <= (m + t) / 2), whose second factor is updated from m to m + 1. The
 * error by rounding is far below 1e-10.
 */
function netTail(t: number, n: number, epsilon: number, rate: number): number {
  if (rate <= epsilon) return binomialPValue(t, n, epsilon);
  const share = (rate + epsilon) / (2 * rate);
  const [logLost, logGained, logOdds] = [log(share), log1p(-share), log(rate) - log1p(-rate)];
  let changes = n * log1p(-rate);
  const first = abs(t);
  let sum = 0;
  for (let m = 0; m < first; m++) {
    // Fewer than t changes can't lose more than t; fewer than -t can't gain as many.
    if (t > 0) sum += exp(changes);
    changes += log((n - m) / (m + 1)) + logOdds;
  }
  // Of the first m, all may be lost (t >= 0), or all must be gained. `at` is the logarithm of P(Bin(m, share) = most).
  let most = max(t, 0);
  let at = first * (t >= 0 ? logLost : logGained);
  let below = t >= 0 ? 1 : exp(at);
  for (let m = first; m <= n; m++) {
    const weight = exp(changes);
    sum += weight * below;
    if (m > n * rate && weight < 1e-18) break;
    changes += log((n - m) / (m + 1)) + logOdds;
    below -= share * exp(at);
    at += log((m + 1) / (m + 1 - most)) + logGained;
    if (most >= (m + 1 + t) / 2 - 0.5) continue;
    at += log((m + 1 - most) / (most + 1)) + logLost - logGained;
    most++;
    below += exp(at);
  }
  return sum;
}

/** Whether items are enough for netPValue to certify "at most epsilon" at `delta`, when none changes. */
export function canSetOff(items: number, epsilon: number, delta: number): boolean {
  return netPValue({ lost: 0, gained: 0, items }, epsilon, delta) <= delta;
}

/** Upper bound at level 1 - delta of the net loss, where its p-value is delta; never below 0. */
export function upperNet(changes: Changes, delta: number): number {
  return whereAtMost(0, delta, (epsilon) => netPValue(changes, epsilon, delta));
}

/** Fewest items with which zero events certify "at most epsilon" at `delta`. */
export function itemsNeeded(epsilon: number, delta: number): number {
  return Math.ceil(Math.log(delta) / Math.log1p(-epsilon) - 1e-9);
}

/** Upper end of the one-sided Clopper-Pearson interval at level 1 - delta. */
export function upperRate(events: number, n: number, delta: number): number {
  if (events >= n) return 1;
  return whereAtMost(events / n, delta, (rate) => binomialPValue(events, n, rate));
}

/** Upper bound at level 1 - delta of an expected loss in [0, 1], where the p-value by betting is delta. */
export function upperMean(losses: readonly number[], delta: number): number {
  return whereAtMost(0, delta, (epsilon) => bettingPValue(losses, epsilon, delta));
}

/** The least epsilon in [low, 1] whose p-value is at most delta, from above; p-values fall as epsilon rises. */
function whereAtMost(from: number, delta: number, pValue: (epsilon: number) => number): number {
  let [low, high] = [from, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (pValue(middle) > delta) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * Fixed-sequence testing: candidates are tested in the order given, each at the full level, until the first that
 * fails. The probability of returning one whose risk is above the limit is at most `delta`, provided that the order
 * was chosen without the items that certify.
 * Source: Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test", section 2.
 * @param pValues of "the candidate's risk is above the limit"
 * @returns index of the last candidate that passed; -1 when the first one fails
 */
export function fixedSequenceTest(pValues: readonly number[], delta: number): number {
  const failure = pValues.findIndex((pValue) => !(pValue <= delta));
  return failure < 0 ? pValues.length - 1 : failure - 1;
}
