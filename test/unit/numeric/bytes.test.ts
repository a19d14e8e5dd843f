import { holdsBfloat16 } from 'lib/numeric/bfloat16.js';
import { nearestBytes } from 'lib/numeric/bytes.js';
import { randomFloats } from '../../helpers/random.js';

test('each column is rounded to whole multiples of the least power of two that reaches its largest number', () => {
  const [columns, rows] = [5, 40];
  const sizes = [1, 1e-6, 3e8, 2 ** 7, 1e-35];
  const values = randomFloats(columns * rows, 3).map((value, i) => value * sizes[i % columns]!);
  const rounded = nearestBytes(values, columns);
  expect(holdsBfloat16(rounded)).toBe(true);
  for (let j = 0; j < columns - 1; j++) {
    const those = [...values.keys()].filter((i) => i % columns === j);
    const most = Math.max(...those.map((i) => Math.abs(values[i]!)));
    const scale = 2 ** Math.ceil(Math.log2(most / 127));
    for (const i of those) {
      expect(Math.abs(rounded[i]! - values[i]!)).toBeLessThanOrEqual(scale / 2);
      expect(rounded[i]! / scale).toBe(Math.trunc(rounded[i]! / scale));
      expect(Math.abs(rounded[i]! / scale)).toBeLessThanOrEqual(127);
    }
  }
  // Too small for any product.
  expect(rounded.filter((_, i) => i % columns === columns - 1)).toEqual(new Float32Array(rows));
});

test('what bytes hold stays as it is, but there is no -0', () => {
  const exact = Float32Array.of(127, 0.5, -127, 0.25, 3, -0.75);
  expect(nearestBytes(exact, 2)).toEqual(exact);
  expect(nearestBytes(nearestBytes(randomFloats(60, 5), 6), 6)).toEqual(nearestBytes(randomFloats(60, 5), 6));
  expect([...nearestBytes(Float32Array.of(100, -0.1, -0), 1)].map((x) => Object.is(x, -0))).toEqual([
    false,
    false,
    false,
  ]);
});
