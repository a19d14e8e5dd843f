/** Heads: small networks on a feature map or on tokens, by which exits decide and answer. */
import type { Growth } from '../model/program/grow.js';
import {
  NO_ACTIVATION,
  NO_REQUANTISATION,
  NONE,
  type Step,
  type Value,
  type ValueId,
} from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';

/**
 * The inputs of a head, computed from a feature map [N, C, height, width], or from one of a sound, [N, C, length], whose height is 1.
 * - `mean`: the averages over height and width; C numbers
 * - `grid`: the averages of the four quarters (which overlap by a row or column if a side is odd), channel by
 * channel, then the maxima over height and width; 5 C numbers
 * - `pyramid`: the averages of a grid of 4 x 4 windows, channel by channel, then the maxima and the mean squares over
 * height and width; 18 C numbers, of a sound 6 C. Windows overlap if a side is not a multiple of 4; a side below 4 has one window per
 * row or column.
 *
 * Or from tokens [N, tokens, C], or a map with channels last, [N, height, width, C]:
 * - `rows`: the averages over all axes but the last; C numbers. In a model with an input `attention_mask` [N, tokens], only tokens
 * that it marks count.
 * - `tokens`: the first of the tokens, as a class token is, then `rows`; 2 C numbers
 *
 * Or it reads every place of a map, and answers with a map; see map-head.ts:
 * - `places`: the C numbers of each place
 * - `classes`: the same; its score also reads how sure the classes are that the head answers
 */
export const FEATURES = ['mean', 'grid', 'pyramid', 'rows', 'tokens', 'places', 'classes'] as const;
export type Features = (typeof FEATURES)[number];
/** One row of numbers for each item. */
export type RowFeatures = Exclude<Features, 'places' | 'classes'>;

export const isOfPlaces = (features: Features): features is 'places' | 'classes' =>
  features === 'places' || features === 'classes';

/** y = weight * x + bias. */
export interface Layer {
  /** outputs x inputs, row-major. */
  readonly weight: Float32Array;
  /** One for each output. */
  readonly bias: Float32Array;
  /** Of a layer that computes with bytes, whose weights are whole numbers from -127 to 127. */
  readonly rounding?: Rounding;
}

/** y = factor * (weight * x') + bias, where x' is round(scale * x + shift), from -128 to 127; of two equally near integers the even one. */
export interface Rounding {
  /** One for each input. */
  readonly scale: Float32Array;
  readonly shift: Float32Array;
  /** One for each output. */
  readonly factor: Float32Array;
}

/** Layers applied in order to the features of a map, with a ReLU between each two. */
export interface Head {
  readonly features: Features;
  readonly layers: readonly Layer[];
  /**
   * Of a head that answers with the network's output itself, such as a vector (where the output has one for each token, they all get this
   * one): layers on the same inputs, whose one number says, through
   * a sigmoid, how near that answer is expected to be. Without it, the answer is class scores, which say so themselves. On places of a map,
   * the last layer reads the means over all places of what the ReLU behind the layer before it gives.
   */
  readonly score?: readonly Layer[];
}

/** Most windows along a side of the grid of `pyramid`. */
export const WINDOWS = 4;

/** Whether a head can read the features of a value. */
export function isReadable(features: RowFeatures, { shape, dtype, term }: Value): boolean {
  if (dtype !== 'float32' && !term) return false;
  if (features === 'tokens') return shape.length === 3;
  if (features === 'rows') return shape.length === 3 || shape.length === 4;
  const sides = shape.slice(2);
  if (sides.length === 1)
    return dtype === 'float32' && (features === 'mean' || (features === 'pyramid' && sides[0]! > 1));
  return sides.length === 2 && (features === 'mean' || sides.every((side) => side > 1));
}

/** Number of inputs of a head on a value of a shape that is readable. */
export function widthOf(features: RowFeatures, shape: readonly number[]): number {
  if (features === 'rows') return shape.at(-1) ?? 0;
  if (features === 'tokens') return 2 * (shape.at(-1) ?? 0);
  const [, channels = 0, height = 0, width = 0] = asMap(shape);
  if (features === 'mean') return channels;
  if (features === 'grid') return 5 * channels;
  return channels * (Math.min(WINDOWS, height) * Math.min(WINDOWS, width) + 2);
}

/** The lengths of a map, for one of a sound too. */
export const asMap = (shape: readonly number[]) =>
  shape.length === 3 ? [shape[0]!, shape[1]!, 1, shape[2]!] : shape;

/** Multiply-adds of evaluating the head for one item, on a value of that shape. */
export function multiplyAddsOf({ features, layers, score = [] }: Head, shape: readonly number[]): number {
  const work = (some: readonly Layer[]) => some.reduce((sum, { weight }) => sum + weight.length, 0);
  if (!isOfPlaces(features)) return work([...layers, ...score]);
  return sizeOf(shape.slice(2)) * work([...layers, ...score.slice(0, -1)]) + work(score.slice(-1));
}

/** Whether layers, one after another, map `width` numbers to `outputs`. */
export function leadsTo(layers: readonly Layer[], width: number, outputs: number): boolean {
  let inputs = width;
  const chained = layers.every(({ weight, bias, rounding: by }) => {
    const given = !by || (by.scale.length === inputs && by.shift.length === inputs);
    const fits = given && weight.length === bias.length * inputs && (!by || by.factor.length === bias.length);
    inputs = bias.length;
    return fits;
  });
  return chained && inputs === outputs;
}

export interface Part {
  readonly steps: readonly Step[];
  readonly result: ValueId;
}

/**
 * Steps of the layers on the head's inputs, [N, inputs of the first layer]. `result` is [N, outputs of the last
 * layer], `hidden` the input of the last layer.
 */
export function layerSteps(
  growth: Growth,
  what: string,
  layers: readonly Layer[],
  seen: ValueId,
): Part & { readonly hidden: ValueId } {
  const steps: Step[] = [];
  let [result, hidden] = [seen, seen];
  for (const [i, { weight, bias, rounding }] of layers.entries()) {
    const [items = 0, inputs = 0] = growth.valueOf(result).shape;
    const outputs = bias.length;
    const b = growth.constant(`${what}/bias ${i}`, bias, [outputs]);
    const y = growth.value(`${what}/layer ${i}`, 'float32', [items, outputs]);
    const last = i === layers.length - 1;
    const act = last ? NO_ACTIVATION : ({ kind: 'relu', alpha: 0, beta: 0 } as const);
    if (rounding) {
      const { steps: before, result: bytes, zero } = roundingSteps(growth, `${what}/${i}`, rounding, result);
      const w = growth.value(`${what}/weight ${i}`, 'int8', [outputs, inputs], Int8Array.from(weight));
      const factor = growth.constant(`${what}/factor ${i}`, rounding.factor, [outputs]);
      const attrs = { transB: true, act, requant: NO_REQUANTISATION };
      steps.push(...before, {
        op: 'qmatmul',
        inputs: [bytes, w, b, factor, zero, NONE],
        outputs: [y],
        attrs,
      });
    } else {
      const w = growth.constant(`${what}/weight ${i}`, weight, [outputs, inputs]);
      steps.push({ op: 'gemm', inputs: [result, w, b, NONE], outputs: [y], attrs: { transB: true, act } });
    }
    [hidden, result] = [result, y];
  }
  return { steps, result, hidden };
}

/** Where bytes have their zero: uint8 stands for -128 to 127. */
const ZERO = 128;

/** Steps that round the inputs of a layer to bytes. */
function roundingSteps(
  growth: Growth,
  what: string,
  { scale, shift }: Rounding,
  from: ValueId,
): Part & { readonly zero: ValueId } {
  const { shape } = growth.valueOf(from);
  const [by, plus] = [
    growth.constant(`${what} scale`, scale, [scale.length]),
    growth.constant(`${what} shift`, shift, [shift.length]),
  ];
  const scaled = growth.value(`${what} scaled`, 'float32', shape);
  const one = growth.constant(`${what} one`, Float32Array.of(1), [1]);
  const zero = growth.value(`${what} zero`, 'uint8', [1], Uint8Array.of(ZERO));
  const result = growth.value(`${what} bytes`, 'uint8', shape);
  const steps: Step[] = [
    { op: 'affine', inputs: [from, by, plus], outputs: [scaled], attrs: { act: NO_ACTIVATION } },
    { op: 'quantize', inputs: [scaled, one, zero], outputs: [result], attrs: { axis: 0 } },
  ];
  return { steps, result, zero };
}
