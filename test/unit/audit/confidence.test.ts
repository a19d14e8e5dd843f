import { logEvidence, lowerBound, RateMonitor, upperBound } from 'lib/audit/confidence.js';
import { uniform } from '../../helpers/random.js';

/** Checks until the monitor trips; Infinity when it doesn't within `most`. */
function checksToTrip(rate: number, limit: number, most: number, seed: number): number {
  const random = uniform(seed);
  const monitor = new RateMonitor(limit, 0.05);
  for (let i = 1; i <= most; i++) {
    monitor.observe(random() < rate);
    if (monitor.exceeded) return i;
  }
  return Number.POSITIVE_INFINITY;
}

test.each([0.005, 0.01])(
  'at a true rate of the limit, %d, at most 5 %% of 1,000 streams ever trip',
  (limit) => {
    const tripped = Array.from({ length: 1000 }, (_, seed) =>
      checksToTrip(limit, limit, 10_000, seed),
    ).filter(Number.isFinite).length;
    // Ville's inequality bounds the probability by 5 %; four standard errors of 1,000 streams are 2.8 points.
    expect(tripped).toBeLessThanOrEqual(50);
  },
);

test('twice the limit trips every stream, within a number of checks that is printed', () => {
  const checks = Array.from({ length: 300 }, (_, seed) => checksToTrip(0.02, 0.01, 20_000, 5000 + seed));
  checks.sort((a, b) => a - b);
  console.log(
    `twice the limit of 1 %: median ${checks[150]} checks, slowest of 300 streams ${checks.at(-1)}`,
  );
  expect(checks.at(-1)).toBeLessThan(10_000);
});

test('the evidence against the limit grows with an event and falls without one', () => {
  expect(logEvidence(6, 100, 0.01)).toBeGreaterThan(logEvidence(5, 99, 0.01));
  expect(logEvidence(5, 100, 0.01)).toBeLessThan(logEvidence(5, 99, 0.01));
});

test('the evidence is a martingale under the limit: its expectation over all outcomes is 1', () => {
  const [n, rate] = [12, 0.1];
  let expectation = 0;
  for (let outcome = 0; outcome < 2 ** n; outcome++) {
    const events = outcome.toString(2).replaceAll('0', '').length;
    expectation += rate ** events * (1 - rate) ** (n - events) * Math.exp(logEvidence(events, n, rate));
  }
  expect(expectation).toBeCloseTo(1, 9);
});

test('bounds enclose the observed rate and close in on it', () => {
  for (const n of [100, 1000, 10_000]) {
    const [low, high] = [lowerBound(n / 20, n, 0.05), upperBound(n / 20, n, 0.05)];
    expect(low).toBeLessThan(0.05);
    expect(high).toBeGreaterThan(0.05);
  }
  expect(lowerBound(500, 10_000, 0.05)).toBeGreaterThan(lowerBound(50, 1000, 0.05));
  expect(upperBound(500, 10_000, 0.05)).toBeLessThan(upperBound(50, 1000, 0.05));
  expect(lowerBound(0, 1000, 0.05)).toBe(0);
  expect(upperBound(0, 0, 0.05)).toBe(1);
});

test('rearm forgets the evidence and leaves the next arming a smaller part of the budget', () => {
  const monitor = new RateMonitor(0.01, 0.05);
  const parts: number[] = [];
  for (let arming = 1; arming <= 1000; arming++) {
    parts.push(monitor.spent);
    for (let i = 0; i < 50; i++) monitor.observe(true);
    expect(monitor.exceeded).toBe(true);
    monitor.rearm();
    expect([monitor.exceeded, monitor.events, monitor.trials, monitor.armings]).toEqual([
      false,
      0,
      0,
      arming + 1,
    ]);
  }
  expect(parts.slice(0, 3)).toEqual([0.05 / 2, 0.05 / 6, 0.05 / 12]);
  const sum = parts.reduce((a, b) => a + b, 0);
  expect(sum).toBeLessThan(0.05);
  expect(sum).toBeGreaterThan(0.0499);
});

test('rearmed every 500 checks at a true rate of the limit, at most 5 % of 500 streams ever trip', () => {
  let tripped = 0;
  for (let seed = 0; seed < 500; seed++) {
    const random = uniform(seed);
    const monitor = new RateMonitor(0.01, 0.05);
    let alarm = false;
    for (let i = 1; i <= 20 * 500; i++) {
      monitor.observe(random() < 0.01);
      alarm ||= monitor.exceeded;
      if (i % 500 === 0) monitor.rearm();
    }
    if (alarm) tripped++;
  }
  // Each arming with the whole budget would be above 20 %.
  expect(tripped).toBeLessThanOrEqual(25);
});

test('losses between 0 and 1 whose mean is the limit trip at most 5 % of 1,000 streams', () => {
  let tripped = 0;
  for (let stream = 0; stream < 1000; stream++) {
    const random = uniform(9000 + stream);
    const monitor = new RateMonitor(0.02, 0.05);
    // A tenth of the items has a loss of 0 to 0.4.
    for (let i = 0; i < 3000 && !monitor.exceeded; i++) monitor.observe(random() < 0.1 ? 0.4 * random() : 0);
    if (monitor.exceeded) tripped++;
  }
  expect(tripped).toBeLessThanOrEqual(50);
  const monitor = new RateMonitor(0.02, 0.05);
  for (let i = 0; i < 2000; i++) monitor.observe(i % 10 === 0 ? 0.5 : 0);
  expect(monitor.exceeded).toBe(true);
});
