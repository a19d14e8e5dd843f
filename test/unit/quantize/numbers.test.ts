import { Histogram } from 'lib/quantize/histogram.js';
import type { Layer } from 'lib/quantize/plan.js';
import { type Quantisation, quantisationOf, RANGES } from 'lib/quantize/range.js';
import { biasScales, correctedBias, integerBias, integerWeights } from 'lib/quantize/weights.js';
import { randomFloats } from '../../helpers/random.js';

/** Many small values and a few large ones, from half a distribution with long tails. */
const SKEWED = randomFloats(20_000, 1).map((x, i) => (i % 2 ? 0 : Math.abs(x) * (i % 1000 === 0 ? 20 : 1)));
const SIGNED = randomFloats(20_000, 2).map((x) => x - 0.2);

function histogramOf(...parts: Float32Array[]): Histogram {
  const histogram = new Histogram();
  for (const part of parts) histogram.add(part);
  return histogram;
}

function restored(x: number, { scale, zero }: Quantisation): number {
  return scale * (Math.min(255, Math.max(0, Math.round(x / scale) + zero)) - zero);
}

const squaredError = (values: Float32Array, quantisation: Quantisation) =>
  values.reduce((sum, x) => sum + (x - restored(x, quantisation)) ** 2, 0) / values.length;

describe.each(RANGES)('ranges by %s', (method) => {
  it('represent zero exactly, with a scale that float32 holds', () => {
    for (const values of [SKEWED, SIGNED, SIGNED.map((x) => x - 5), new Float32Array(9)]) {
      const found = quantisationOf(histogramOf(values), method);
      expect(restored(0, found)).toBe(0);
      expect(Math.fround(found.scale)).toBe(found.scale);
      expect(found.scale).toBeGreaterThan(0);
      expect(Number.isInteger(found.zero) && found.zero >= 0 && found.zero <= 255).toBe(true);
    }
  });

  it('spend no level below zero on values that are never negative', () => {
    expect(quantisationOf(histogramOf(SKEWED), method).zero).toBe(0);
  });
});

test('the range of least error loses less than extremes and percentiles', () => {
  for (const values of [SKEWED, SIGNED]) {
    const losses = RANGES.map((method) => squaredError(values, quantisationOf(histogramOf(values), method)));
    expect(losses[0]).toBeLessThanOrEqual(1.02 * Math.min(...losses));
  }
  // A million values below 1, and one of 3.
  const usual = SIGNED.map((x) => Math.abs(x) / 1.2);
  const histogram = histogramOf(...Array.from({ length: 50 }, () => usual), Float32Array.of(3));
  const [error, , max] = RANGES.map((method) => {
    const found = quantisationOf(histogram, method);
    return 50 * usual.length * squaredError(usual, found) + squaredError(Float32Array.of(3), found);
  });
  expect(error).toBeLessThan(0.6 * max!);
});

test('extremes are covered without clipping', () => {
  const found = quantisationOf(histogramOf(SIGNED), 'max');
  for (const x of [Math.max(...SIGNED), Math.min(...SIGNED)]) {
    expect(Math.abs(restored(x, found) - x)).toBeLessThanOrEqual(found.scale);
  }
});

test('histograms of parts, merged, are that of the whole', () => {
  const merged = histogramOf(SIGNED.slice(0, 5000));
  merged.merge(histogramOf(SIGNED.slice(5000).map((x) => 100 * x)));
  const whole = histogramOf(
    SIGNED.slice(0, 5000),
    SIGNED.slice(5000).map((x) => 100 * x),
  );
  expect(merged.bins().counts.reduce((a, b) => a + b)).toBe(whole.bins().counts.reduce((a, b) => a + b));
  expect(quantisationOf(merged, 'error').scale).toBeCloseTo(quantisationOf(whole, 'error').scale, 3);
});

function layer(opType: string, dims: readonly number[], attributes: Record<string, number> = {}): Layer {
  const data = randomFloats(
    dims.reduce((a, b) => a * b, 1),
    3,
  );
  const attribute = Object.entries(attributes).map(([name, i]) => ({ name, type: 2, i }));
  const axis = opType === 'Conv' || attributes.transB ? 0 : 1;
  const bias = opType === 'MatMul' ? undefined : randomFloats(dims[axis]!, 4);
  return {
    node: { opType, input: ['x', 'w', 'b'], output: ['y'], attribute },
    weights: { dims, data },
    axis,
    bias,
  };
}

const INPUT: Quantisation = { scale: 0.05, zero: 10 };

test('each output channel has a scale of its own, and rounds its weights to the nearest level', () => {
  const gemm = layer('Gemm', [8, 5], { transB: 1 });
  gemm.weights.data.set(gemm.weights.data.slice(0, 5).map((w) => 1000 * w));
  const { values, scales } = integerWeights(gemm, INPUT);
  expect(scales[0]! / scales[1]!).toBeGreaterThan(100);
  gemm.weights.data.forEach((w, i) => {
    const scale = scales[Math.floor(i / 5)]!;
    const clipped = Math.abs(values[i]!) === 127;
    expect(Math.abs(values[i]! * scale - w)).toBeLessThanOrEqual((clipped ? 50 : 0.501) * scale);
  });
});

test.each([
  ['Conv', [6, 2, 3, 3], { group: 2 }, 4],
  ['Conv', [4, 1, 3, 3], { group: 4 }, 4],
  ['Conv', [4, 4, 1, 1], {}, 4],
  ['Gemm', [6, 4], { transB: 1 }, 4],
  ['Gemm', [4, 6], {}, 4],
])('the corrected bias of %s %j %j keeps the mean of each output', (opType, dims, attributes, channels) => {
  const one = layer(opType, dims, attributes);
  const integers = integerWeights(one, INPUT);
  const means = Float64Array.from(randomFloats(channels, 5));
  const bias = correctedBias(one, integers, means);
  // Means of the outputs, computed apart: an input that has its mean everywhere.
  const outputs = (weights: (index: number) => number, shift: Float32Array) => {
    const count = dims[one.axis]!;
    return Array.from({ length: count }, (_, m) => {
      let sum = shift[m]!;
      const groups = (attributes as { group?: number }).group ?? 1;
      for (let c = 0; c < channels; c++) {
        const group = Math.floor(c / (channels / groups));
        if (opType === 'Conv' && group !== Math.floor(m / (count / groups))) continue;
        const taps = opType === 'Conv' ? dims[2]! * dims[3]! : 1;
        for (let t = 0; t < taps; t++) {
          const inGroup = c % (channels / groups);
          const index =
            opType === 'Conv'
              ? (m * dims[1]! + inGroup) * taps + t
              : one.axis === 0
                ? m * channels + c
                : c * count + m;
          sum += weights(index) * means[c]!;
        }
      }
      return sum;
    });
  };
  const float = outputs((i) => one.weights.data[i]!, one.bias!);
  const perOutput = one.weights.data.length / integers.scales.length;
  const scaleOf = (i: number) =>
    integers.scales[one.axis === 0 ? Math.floor(i / perOutput) : i % integers.scales.length]!;
  const rounded = outputs((i) => integers.values[i]! * scaleOf(i), bias);
  for (const [m, value] of float.entries()) expect(rounded[m]).toBeCloseTo(value, 4);
});

test('biases fit into int32, however small the weights are', () => {
  const gemm = layer('Gemm', [2, 3], { transB: 1 });
  gemm.weights.data.fill(1e-30);
  gemm.bias!.set([1e6, -1e6]);
  const { scales } = integerWeights(gemm, INPUT);
  const units = biasScales(INPUT, scales);
  const bias = integerBias(gemm.bias!, units);
  expect([...bias].map((value, c) => value * units[c]!)).toEqual([
    expect.closeTo(1e6, -2),
    expect.closeTo(-1e6, -2),
  ]);
  // Lowering leaves layers with larger ones in float.
  expect(Math.max(...bias.map(Math.abs))).toBeLessThan(2 ** 30);
});
