import { softmaxTop } from '../../../lib/audit/top.js';
import { randomFloats } from '../../helpers/random.js';

test('the best classes, best first, with their probability among all', () => {
  for (let seed = 0; seed < 50; seed++) {
    const logits = randomFloats(1 + (seed % 20), seed);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    const sorted = [...logits.entries()].sort((a, b) => b[1] - a[1]);
    for (const k of [1, 3, 100]) {
      const best = softmaxTop(logits, k);
      expect(best.map(([index]) => index)).toEqual(sorted.slice(0, k).map(([index]) => index));
      for (const [index, probability] of best) {
        expect(probability).toBeCloseTo(Math.exp(logits[index]!) / sum, 6);
      }
    }
  }
});

test('of equal ones the first comes first, and large logits do not overflow', () => {
  expect(softmaxTop(Float32Array.of(1, 1000, 1000, -1000), 3)).toEqual([
    [1, 0.5],
    [2, 0.5],
    [0, 0],
  ]);
});
