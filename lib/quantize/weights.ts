/** Weights and biases as integers. */
import { intOf } from './network.js';
import type { Layer } from './plan.js';
import type { Quantisation } from './range.js';

/** Symmetric: -127 to 127, one scale for each output channel. */
const MAX = 127;
/** A bias is an int32; most of its range remains for the sum that it is added to. From 2^30 on, a layer would run in float. */
const MAX_BIAS = 2 ** 29;
const MIN_SCALE = 2 ** -60;
/** Fractions of the largest weight that are tried as the end of the range. */
const FRACTIONS = Array.from({ length: 16 }, (_, i) => 1 - i / 50);

export interface IntegerWeights {
  readonly values: Int8Array;
  readonly scales: Float32Array;
}

/** Calls `visit` with the index of each weight, its output channel and its input channel. */
export function eachWeight(
  { node, weights: { dims, data }, axis }: Layer,
  visit: (index: number, output: number, input: number) => void,
): void {
  if (node.opType !== 'Conv') {
    const columns = dims[1]!;
    for (let i = 0; i < data.length; i++) {
      const [row, column] = [Math.floor(i / columns), i % columns];
      if (axis === 0) visit(i, row, column);
      else visit(i, column, row);
    }
    return;
  }
  const [outputs, inputs, ...kernel] = dims as [number, number, ...number[]];
  const taps = kernel.reduce((a, b) => a * b, 1);
  const perGroup = outputs / intOf(node, 'group', 1);
  for (let i = 0, output = 0; output < outputs; output++) {
    const first = Math.floor(output / perGroup) * inputs;
    for (let input = 0; input < inputs; input++) {
      for (const end = i + taps; i < end; i++) visit(i, output, first + input);
    }
  }
}

/**
 * Rounds the weights of a layer with the scales that have the least squared error.
 * @param input quantisation of the layer's input, which the scale of the bias depends on
 */
export function integerWeights(layer: Layer, input: Quantisation): IntegerWeights {
  const { data, dims } = layer.weights;
  const channels = dims[layer.axis]!;
  const largest = new Float64Array(channels);
  eachWeight(layer, (i, c) => {
    largest[c] = Math.max(largest[c]!, Math.abs(data[i]!));
  });
  const candidates = FRACTIONS.map((part) =>
    Float32Array.from(largest, (max, c) =>
      Math.max((part * max) / MAX, Math.abs(layer.bias?.[c] ?? 0) / (input.scale * MAX_BIAS), MIN_SCALE),
    ),
  );
  const scales = candidates[0]!.slice();
  const min = new Float64Array(channels).fill(Number.POSITIVE_INFINITY);
  for (const candidate of candidates) {
    const errors = new Float64Array(channels);
    eachWeight(layer, (i, c) => {
      errors[c]! += (data[i]! - rounded(data[i]!, candidate[c]!) * candidate[c]!) ** 2;
    });
    for (let c = 0; c < channels; c++) {
      if (errors[c]! >= min[c]!) continue;
      min[c] = errors[c]!;
      scales[c] = candidate[c]!;
    }
  }
  const values = new Int8Array(data.length);
  eachWeight(layer, (i, c) => {
    values[i] = rounded(data[i]!, scales[c]!);
  });
  return { values, scales };
}

function rounded(value: number, scale: number): number {
  return Math.max(-MAX, Math.min(MAX, Math.round(value / scale)));
}

/**
 * The bias that keeps the mean of each output channel in spite of the rounding of weights (Nagel et al. 2019, Data-Free
 * Quantization Through Weight Equalization and Bias Correction, section 4.2; with observed means).
 * @param means of the input's channels
 */
export function correctedBias(
  layer: Layer,
  { values, scales }: IntegerWeights,
  means: Float64Array,
): Float32Array {
  const { data, dims } = layer.weights;
  const shift = new Float64Array(dims[layer.axis]!);
  eachWeight(layer, (i, output, input) => {
    shift[output]! += (data[i]! - values[i]! * scales[output]!) * means[input]!;
  });
  return Float32Array.from(shift, (value, c) => value + (layer.bias?.[c] ?? 0));
}

/** A bias in units of the sum that it is added to. */
export function integerBias(bias: Float32Array, scales: Float32Array): Int32Array {
  return Int32Array.from(bias, (value, c) =>
    Math.max(-MAX_BIAS, Math.min(MAX_BIAS, Math.round(value / scales[c]!))),
  );
}

/** The product of the scales of input and weights. */
export function biasScales({ scale }: Quantisation, scales: Float32Array): Float32Array {
  return scales.map((own) => scale * own);
}
