import { risksOf } from 'lib/calibrate/order/risk-curve.js';
import { uniform } from '../../helpers/random.js';

const logistic = (at: number) => 1 / (1 + Math.exp(-at));

/** Rows whose risk at doubt x is logistic(at + slope * x). */
function rowsOf(count: number, at: number, slope: number, seed: number) {
  const random = uniform(seed);
  const doubts = Float64Array.from({ length: count }, () => 6 * random() - 3);
  const losses = Uint8Array.from(doubts, (x) => Number(random() < logistic(at + slope * x)));
  return { doubts, losses };
}

test('finds the risks that the losses were drawn from, each exit its own', () => {
  const truths = [
    [-2, 1],
    [0, 2],
  ] as const;
  const scores = truths.map(([at, slope], i) => rowsOf(8000, at, slope, i + 1));
  for (const [i, risks] of risksOf(scores).entries()) {
    const [at, slope] = truths[i]!;
    for (const [row, risk] of risks.entries()) {
      expect(Math.abs(risk - logistic(at + slope * scores[i]!.doubts[row]!))).toBeLessThan(0.03);
    }
  }
});

test('where nothing was lost the risk is small, falls with doubt, and is never 0', () => {
  const doubts = Float64Array.from({ length: 500 }, (_, i) => i / 100);
  const [risks] = risksOf([{ doubts, losses: new Uint8Array(500) }]);
  for (const [row, risk] of risks!.entries()) {
    expect(risk).toBeGreaterThan(row === 0 ? 0 : risks![row - 1]!);
    expect(risk).toBeLessThan(0.05);
  }
});

test('an exit with few rows is believed to be like the others', () => {
  const many = rowsOf(8000, -1, 1.5, 5);
  const few = { doubts: Float64Array.of(-2, 0, 2), losses: Uint8Array.of(0, 0, 0) };
  const [, risks] = risksOf([many, few]);
  for (const [row, risk] of risks!.entries()) {
    expect(Math.abs(risk - logistic(-1 + 1.5 * few.doubts[row]!))).toBeLessThan(0.1);
  }
});

test('losses that fall with doubt give no curve that falls', () => {
  const doubts = Float64Array.from({ length: 200 }, (_, i) => i / 50);
  const losses = Uint8Array.from(doubts, (x) => Number(x < 1));
  const [risks] = risksOf([{ doubts, losses }]);
  expect(risks![199]).toBeGreaterThan(risks![0]!);
});
