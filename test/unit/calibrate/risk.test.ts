import {
  bettingPValue,
  binomialPValue,
  boundedPValue,
  fixedSequenceTest,
  itemsNeeded,
  upperMean,
  upperRate,
} from 'lib/calibrate/certify/p-values.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { uniform } from '../../helpers/random.js';

/** The tail in exact rational arithmetic, p = numerator / denominator. */
function exactTail(k: number, n: number, numerator: bigint, denominator: bigint): number {
  let sum = 0n;
  let choose = 1n;
  for (let i = 0; i <= k; i++) {
    sum += choose * numerator ** BigInt(i) * (denominator - numerator) ** BigInt(n - i);
    choose = (choose * BigInt(n - i)) / BigInt(i + 1);
  }
  const scale = 10n ** 30n;
  return Number((sum * scale) / denominator ** BigInt(n)) / 1e30;
}

test.each([
  [0, 20, 1n, 10n],
  [3, 50, 1n, 100n],
  [7, 200, 3n, 100n],
  [49, 60, 1n, 2n],
])('P(Bin(n, p) <= %d) for n = %d agrees with rational arithmetic', (k, n, a, b) => {
  const exact = exactTail(k, n, a, b);
  expect(Math.abs(binomialPValue(k, n, Number(a) / Number(b)) / exact - 1)).toBeLessThan(1e-11);
});

test('the allowed numbers of disagreements are those of the exact binomial', () => {
  expect(allowedEvents(1000, 0.01, 0.05)).toBe(4);
  expect(allowedEvents(5000, 0.01, 0.05)).toBe(38);
  expect(allowedEvents(10_000, 0.01, 0.05)).toBe(83);
  expect(allowedEvents(10_000, 0.005, 0.05)).toBe(38);
  expect(itemsNeeded(0.01, 0.05)).toBe(299);
  expect(allowedEvents(298, 0.01, 0.05)).toBe(-1);
  expect(allowedEvents(299, 0.01, 0.05)).toBe(0);
});

test('edges of the tail', () => {
  expect(binomialPValue(-1, 10, 0.5)).toBe(0);
  expect(binomialPValue(10, 10, 0.5)).toBe(1);
  expect(binomialPValue(0, 10, 1)).toBe(0);
  expect(binomialPValue(0, 10, 0)).toBe(1);
});

test('the upper rate is where the tail is delta', () => {
  expect(binomialPValue(5, 1000, upperRate(5, 1000, 0.05))).toBeCloseTo(0.05, 9);
  expect(upperRate(10, 10, 0.05)).toBe(1);
});

/** `count` losses of `loss` among `n`, evenly spread. */
const spread = (count: number, n: number, loss = 1) =>
  Array.from({ length: n }, (_, i) =>
    Math.floor(((i + 1) * count) / n) > Math.floor((i * count) / n) ? loss : 0,
  );

test('the p-value by betting is at most what the capital allows, and 1 where the mean is at the limit', () => {
  // Without a loss the capital grows by at most 1 + epsilon each time.
  for (const n of [100, 400, 2000]) {
    const found = bettingPValue(spread(0, n), 0.01, 0.05);
    expect(found).toBeGreaterThanOrEqual(1.01 ** -n * (1 - 1e-9));
    expect(found).toBeLessThan(1.01 ** -(0.9 * n));
  }
  expect(bettingPValue(spread(40, 2000), 0.01, 0.05)).toBeGreaterThan(0.5);
  expect(bettingPValue([], 0.01, 0.05)).toBe(1);
});

test('losses that differ little certify what counts of the same mean do not', () => {
  const alike = Array.from({ length: 400 }, (_, i) => 0.03 + 0.01 * (i % 2));
  expect(bettingPValue(alike, 0.05, 0.05)).toBeLessThan(0.01);
  expect(binomialPValue(14, 400, 0.05)).toBeGreaterThan(0.05);
});

test('the upper bound of a mean is where the p-value by betting is delta', () => {
  const losses = spread(16, 2000, 0.5);
  const bound = upperMean(losses, 0.05);
  expect(bettingPValue(losses, bound, 0.05)).toBeCloseTo(0.05, 6);
  expect(bound).toBeGreaterThan(0.004);
  expect(bound).toBeLessThan(0.01);
  expect(upperMean(spread(10, 10), 0.05)).toBe(1);
});

test('a fixed sequence stops at its first failure', () => {
  const test = (...pValues: number[]) => fixedSequenceTest(pValues, 0.05);
  expect(test(0.01, 0.04, 0.06, 0.001)).toBe(1);
  expect(test(0.5, 0.001)).toBe(-1);
  expect(test(0.05)).toBe(0);
  expect(test(Number.NaN)).toBe(-1);
  expect(test()).toBe(-1);
});

test.each([0.005, 0.01, 0.02])(
  'the promise is broken in at most delta of 2,000 repetitions, epsilon = %d',
  (epsilon) => {
    // A series of 12 settings whose true disagreement rises past the limit, on shared items as in a real calibration.
    const rates = Array.from({ length: 12 }, (_, i) => (epsilon * (i + 1)) / 8);
    const [n, delta, repetitions] = [2000, 0.05, 2000];
    const random = uniform(Math.round(epsilon * 1e6));
    const allowed = allowedEvents(n, epsilon, delta);
    let broken = 0;
    let promised = 0;
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const events = new Array<number>(rates.length).fill(0);
      for (let item = 0; item < n; item++) {
        const u = random();
        for (let i = rates.length - 1; i >= 0 && u < rates[i]!; i--) events[i]!++;
      }
      const chosen = fixedSequenceTest(
        events.map((count) => (count <= allowed ? 0 : 1)),
        delta,
      );
      if (chosen >= 0) promised++;
      if (chosen >= 0 && rates[chosen]! > epsilon) broken++;
    }
    // Three standard errors of a binomial with 2,000 repetitions at 5 %.
    expect(broken / repetitions).toBeLessThanOrEqual(
      delta + 3 * Math.sqrt((delta * (1 - delta)) / repetitions),
    );
    expect(promised).toBeGreaterThan(repetitions / 2);
  },
);

test('with few items, losses that are no counts certify as much as counts do where there are none', () => {
  const none = (items: number) => Array<number>(items).fill(0);
  expect(bettingPValue(none(299), 0.01, 0.05)).toBeGreaterThan(0.05);
  for (const limit of [0.002, 0.01, 0.05]) {
    const items = itemsNeeded(limit, 0.05);
    expect(boundedPValue(none(items), limit, 0.05)).toBeLessThanOrEqual(0.05);
    expect(boundedPValue(none(items - 1), limit, 0.05)).toBeGreaterThan(0.05);
  }
});

test.each([
  ['rare and large', (random: () => number) => (random() < 0.0105 / 0.95 ? 0.9 + 0.1 * random() : 0)],
  ['spread', (random: () => number) => 0.021 * random()],
])('a mean above the limit is certified in at most 5 % of the draws of few items: %s', (_, draw) => {
  const random = uniform(31);
  const draws = 4000;
  let certified = 0;
  for (let i = 0; i < draws; i++) {
    const losses = Array.from({ length: 303 }, () => draw(random));
    certified += Number(boundedPValue(losses, 0.01, 0.05) <= 0.05);
  }
  expect(certified / draws).toBeLessThan(0.05 + 3 * Math.sqrt((0.05 * 0.95) / draws));
});
