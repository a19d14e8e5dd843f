import { applyLinear, fitTemperature, ridge, scaleLinear } from '../../../lib/calibrate/regression.js';
import { partOf } from '../../../lib/calibrate/split.js';
import { randomFloats, uniform } from '../../helpers/random.js';

test('ridge regression finds a linear map, and ignores a constant feature', () => {
  const features = Array.from({ length: 300 }, (_, i) => Float32Array.of(...randomFloats(3, i), 7));
  const map = (x: Float32Array) => Float32Array.of(2 * x[0]! - x[1]! + 0.5, 3 * x[2]! - 1);
  const found = ridge(features, features.map(map), 1e-6);
  for (const x of features.slice(0, 20)) {
    for (const [k, y] of applyLinear(found, x).entries()) expect(y).toBeCloseTo(map(x)[k]!, 3);
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

test('the temperature undoes a known scale', () => {
  const random = uniform(1);
  const logits = Array.from({ length: 4000 }, () => Float32Array.from({ length: 4 }, () => 4 * random()));
  const answers = logits.map((row) => {
    const weights = [...row].map(Math.exp);
    const u = random() * weights.reduce((a, b) => a + b, 0);
    let passed = 0;
    return weights.findIndex((w) => {
      passed += w;
      return u < passed;
    });
  });
  expect(fitTemperature(logits, answers)).toBeCloseTo(1, 1);
  expect(
    fitTemperature(
      logits.map((row) => row.map((z) => 3 * z)),
      answers,
    ),
  ).toBeCloseTo(1 / 3, 1);
});

test('scaling a map scales its outputs', () => {
  const map = { weight: Float32Array.of(1, 2), bias: Float32Array.of(3) };
  expect([...applyLinear(scaleLinear(map, 2), Float32Array.of(1, 1))]).toEqual([12]);
});

test('the split depends on content and seed alone, in about its shares', () => {
  const parts = Array.from({ length: 3000 }, (_, i) => partOf(String(i), 1));
  const share = (part: string) => parts.filter((p) => p === part).length / parts.length;
  expect(share('fit')).toBeCloseTo(0.3, 1);
  expect(share('order')).toBeCloseTo(0.2, 1);
  expect(share('certify')).toBeCloseTo(0.5, 1);
  expect(parts).toEqual(Array.from({ length: 3000 }, (_, i) => partOf(String(i), 1)));
  expect(parts).not.toEqual(Array.from({ length: 3000 }, (_, i) => partOf(String(i), 2)));
});
