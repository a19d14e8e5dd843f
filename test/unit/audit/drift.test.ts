import { PSI_DRIFT, populationStability } from 'lib/audit/drift-monitor.js';
import { distributionOf } from 'lib/skip/score-distribution.js';

const grid = (n: number, f: (u: number) => number) => Array.from({ length: n }, (_, i) => f((i + 0.5) / n));

test('the same distribution is stable, a shifted one is drift', () => {
  const distribution = distributionOf(
    grid(1000, (u) => u),
    0.5,
  );
  expect(
    populationStability(
      distribution,
      grid(500, (u) => u),
    ),
  ).toBeLessThan(0.01);
  expect(
    populationStability(
      distribution,
      grid(500, (u) => 0.3 + 0.7 * u),
    ),
  ).toBeGreaterThan(PSI_DRIFT);
});

test('scores that are NaN leave the deciles of the others in order', () => {
  // In an order in which sorting by differences, which NaN spoils, doesn't sort.
  const scores = grid(200, (u) => (u * 7919) % 1).flatMap((score, i) =>
    i % 20 === 0 ? [score, Number.NaN] : [score],
  );
  const { edges } = distributionOf(scores, 0.5);
  const sorted = scores.filter((score) => !Number.isNaN(score)).sort((a, b) => a - b);
  expect(edges).toEqual([21, 42, 63, 84, 105, 126, 147, 168, 189].map((place) => sorted[place]));
});

test('agrees with the formula on two bins', () => {
  const distribution = { edges: [0], shares: [0.5, 0.5], skipRate: 0.5 };
  const scores = [...new Array(80).fill(-1), ...new Array(20).fill(1)];
  const expected = (0.8 - 0.5) * Math.log(0.8 / 0.5) + (0.2 - 0.5) * Math.log(0.2 / 0.5);
  expect(populationStability(distribution, scores)).toBeCloseTo(expected, 12);
});

test('an empty bin and a constant score stay finite', () => {
  const constant = distributionOf(new Array(100).fill(3), 0);
  expect(populationStability(constant, new Array(100).fill(3))).toBe(0);
  expect(populationStability(constant, new Array(100).fill(-3))).toBeGreaterThan(PSI_DRIFT);
  expect(populationStability(constant, [])).toBe(0);
});
