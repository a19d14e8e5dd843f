import fc from 'fast-check';
import { latencyOf, pairedChange } from 'lib/measure/statistics.js';

test('latencyOf gives mean, median and 95th percentile', () => {
  const sample = Array.from({ length: 101 }, (_, i) => 100 - i);
  expect(latencyOf(sample)).toEqual({ mean: 50, p50: 50, p95: 95 });
  expect(latencyOf([3])).toEqual({ mean: 3, p50: 3, p95: 3 });
});

describe('pairedChange', () => {
  test('follows the formula of Agresti and Min', () => {
    // 2x2 table with 12 and 5 discordant of 200, half a count added to each cell.
    const [n, b, c] = [202, 12.5, 5.5];
    const half = (1.959963984540054 * Math.sqrt(b + c - (b - c) ** 2 / n)) / n;
    const { points, ci95 } = pairedChange(200, 12, 5);
    expect(points).toBeCloseTo(3.5, 12);
    expect(ci95[0]).toBeCloseTo(100 * ((b - c) / n - half), 12);
    expect(ci95[1]).toBeCloseTo(100 * ((b - c) / n + half), 12);
  });

  test('stays wide when nothing differs, and within the possible', () => {
    const { points, ci95 } = pairedChange(20, 0, 0);
    expect(points).toBe(0);
    expect(ci95[1]).toBeGreaterThan(5);
    expect(ci95[0]).toBe(-ci95[1]);
    expect(pairedChange(1, 1, 0).ci95[1]).toBeLessThanOrEqual(100);
  });

  test('always holds the change itself, and mirrors', () => {
    const count = fc.nat(50);
    fc.assert(
      fc.property(count, count, count, (gained, lost, rest) => {
        const items = gained + lost + rest + 1;
        const { points, ci95 } = pairedChange(items, gained, lost);
        expect(ci95[0]).toBeLessThanOrEqual(points);
        expect(ci95[1]).toBeGreaterThanOrEqual(points);
        const mirrored = pairedChange(items, lost, gained);
        expect(mirrored.ci95[0]).toBeCloseTo(-ci95[1], 9);
      }),
    );
  });
});
