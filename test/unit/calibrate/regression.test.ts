import { applyHead } from '../../../lib/calibrate/mlp.js';
import { ridge } from '../../../lib/calibrate/regression.js';
import { partOf } from '../../../lib/calibrate/split.js';
import { randomFloats } from '../../helpers/random.js';

test('ridge regression finds a linear map, and ignores a constant feature', () => {
  const features = Array.from({ length: 300 }, (_, i) => Float32Array.of(...randomFloats(3, i), 7));
  const map = (x: Float32Array) => Float32Array.of(2 * x[0]! - x[1]! + 0.5, 3 * x[2]! - 1);
  const found = ridge(features, features.map(map), 1e-6);
  for (const x of features.slice(0, 20)) {
    for (const [k, y] of applyHead({ features: 'mean', layers: [found] }, x).entries())
      expect(y).toBeCloseTo(map(x)[k]!, 3);
  }
  expect(found.weight[3]).toBe(0);
});

test('the penalty keeps collinear features finite', () => {
  const features = Array.from({ length: 50 }, (_, i) => Float32Array.of(i / 50, i / 50));
  const { weight } = ridge(
    features,
    features.map((x) => Float32Array.of(x[0]! * 4)),
    1e-3,
  );
  expect(weight[0]).toBeCloseTo(weight[1]!, 4);
  expect(weight[0]! + weight[1]!).toBeCloseTo(4, 1);
});

test('the split depends on content and seed alone, in about its shares', () => {
  const parts = Array.from({ length: 3000 }, (_, i) => partOf(String(i), 1));
  const share = (part: string) => parts.filter((p) => p === part).length / parts.length;
  expect(share('fit')).toBeCloseTo(0.3, 1);
  expect(share('order')).toBeCloseTo(0.1, 1);
  expect(share('certify')).toBeCloseTo(0.6, 1);
  expect(parts).toEqual(Array.from({ length: 3000 }, (_, i) => partOf(String(i), 1)));
  expect(parts).not.toEqual(Array.from({ length: 3000 }, (_, i) => partOf(String(i), 2)));
});
