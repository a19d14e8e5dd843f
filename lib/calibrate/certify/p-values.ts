/**
 * P-values for "the risk is above epsilon", and bounds on a rate, from finitely many losses. All are exact or
 * conservative for every sample size; none is an approximation by the normal distribution.
 */

const { exp, log, log1p, max, min, sqrt } = Math;

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
