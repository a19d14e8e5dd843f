/** Heads: small read-outs of a feature map, which exits and gates decide by. */
import type { Growth } from '../model/grow.js';
import { NO_ACTIVATION, NONE, type Step, type ValueId } from '../model/program.js';

/**
 * What a head sees of a feature map [N, C, height, width].
 *  - `mean`: the averages over height and width; C numbers
 *  - `grid`: the averages of its four quarters, which overlap by a row or column where a side is odd, channel after
 *    channel, and then the maxima over height and width; 5 C numbers
 */
export const FEATURES = ['mean', 'grid'] as const;
export type Features = (typeof FEATURES)[number];

/** y = weight * x + bias. */
export interface Layer {
  /** outputs x inputs, row-major. */
  readonly weight: Float32Array;
  /** One for each output. */
  readonly bias: Float32Array;
}

/** Layers one after another on the features of a map, with a ReLU between any two. */
export interface Head {
  readonly features: Features;
  readonly layers: readonly Layer[];
}

/** How many numbers a head sees of a map with that many channels. */
export function widthOf(features: Features, channels: number): number {
  return features === 'mean' ? channels : 5 * channels;
}

/** Of one item: what asking the head costs. */
export function multiplyAddsOf({ layers }: Head): number {
  return layers.reduce((sum, { weight }) => sum + weight.length, 0);
}

interface Part {
  readonly steps: readonly Step[];
  readonly result: ValueId;
}

/** Steps that make the features of the map `from`, [N, C, height, width] with sides of 2 at least; [N, widthOf]. */
export function featureSteps(growth: Growth, what: string, features: Features, from: ValueId): Part {
  const [items = 0, channels = 0, height = 0, width = 0] = growth.valueOf(from).shape;
  const flat = (name: string, size: number) => growth.value(`${what}/${name}`, 'float32', [items, size]);
  if (features === 'mean') {
    const mean = flat('mean', channels);
    const pool: Step = { op: 'globalPool', inputs: [from], outputs: [mean], attrs: { kind: 'avg' } };
    return { steps: [pool], result: mean };
  }
  const quarters = growth.value(`${what}/quarters`, 'float32', [items, channels, 2, 2]);
  const averages = flat('averages', 4 * channels);
  const maxima = flat('maxima', channels);
  const result = flat('features', 5 * channels);
  const kernel = [Math.ceil(height / 2), Math.ceil(width / 2)];
  const window = {
    kernel,
    strides: [height - kernel[0]!, width - kernel[1]!],
    pads: [0, 0, 0, 0],
    dilations: [1, 1],
    countIncludePad: false,
    columnMajorIndices: false,
  };
  const steps: Step[] = [
    { op: 'pool', inputs: [from], outputs: [quarters], attrs: { kind: 'avg', ...window } },
    { op: 'reshape', inputs: [quarters], outputs: [averages], attrs: {} },
    { op: 'globalPool', inputs: [from], outputs: [maxima], attrs: { kind: 'max' } },
    { op: 'concat', inputs: [averages, maxima], outputs: [result], attrs: { axis: 1 } },
  ];
  return { steps, result };
}

/** Steps of the layers on features [N, widthOf]; the result is [N, outputs of the last layer]. */
export function layerSteps(growth: Growth, what: string, layers: readonly Layer[], features: ValueId): Part {
  const steps: Step[] = [];
  let result = features;
  for (const [i, { weight, bias }] of layers.entries()) {
    const [items = 0, inputs = 0] = growth.valueOf(result).shape;
    const outputs = bias.length;
    const w = growth.constant(`${what}/weight ${i}`, weight, [outputs, inputs]);
    const b = growth.constant(`${what}/bias ${i}`, bias, [outputs]);
    const y = growth.value(`${what}/layer ${i}`, 'float32', [items, outputs]);
    const last = i === layers.length - 1;
    const act = last ? NO_ACTIVATION : ({ kind: 'relu', alpha: 0, beta: 0 } as const);
    steps.push({ op: 'gemm', inputs: [result, w, b, NONE], outputs: [y], attrs: { transB: true, act } });
    result = y;
  }
  return { steps, result };
}
