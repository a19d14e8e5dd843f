/** Heads: small networks on a feature map or on tokens, by which exits decide and answer. */
import type { Operations } from '../kernels/operations.js';
import type { Growth } from '../model/program/grow.js';
import {
  NO_ACTIVATION,
  NO_REQUANTISATION,
  NONE,
  type Program,
  type Step,
  type Term,
  type Value,
  type ValueId,
} from '../model/program/program.js';
import { range, sizeOf } from '../numeric/shapes.js';
import { ARRAY_OF } from '../tensor/tensor.js';

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
const WINDOWS = 4;

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
const asMap = (shape: readonly number[]) =>
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
  const chained = layers.every(({ weight, bias }) => {
    const fits = weight.length === bias.length * inputs;
    inputs = bias.length;
    return fits;
  });
  return chained && inputs === outputs;
}

interface Part {
  readonly steps: readonly Step[];
  readonly result: ValueId;
}

/** Steps that compute the features of the value `from`, which is readable; [N, widthOf]. */
export function featureSteps(growth: Growth, what: string, features: RowFeatures, from: ValueId): Part {
  if (features === 'mean' || features === 'grid' || features === 'pyramid') {
    return mapFeatures(growth, what, features, from);
  }
  const { shape, dtype } = growth.valueOf(from);
  const tokens = dtype === 'float32' ? from : growth.value(`${what}/numbers`, 'float32', shape);
  const { steps, result } = TOKEN_FEATURES[features](growth, what, tokens);
  return { steps: [...(tokens === from ? [] : dequantised(growth, what, from, tokens)), ...steps], result };
}

const TOKEN_FEATURES = { rows: meanOfRows, tokens: firstAndMean } as const;

/** The numbers that the bytes `from`, which have a term, stand for. */
function dequantised(growth: Growth, what: string, from: ValueId, to: ValueId): Step[] {
  const { dtype, term } = growth.valueOf(from);
  const scale = growth.constant(`${what}/scale`, Float32Array.of(term!.factor), [1]);
  const zero = growth.value(`${what}/zero`, dtype, [1], ARRAY_OF[dtype as 'uint8' | 'int8'].of(term!.zero));
  return [{ op: 'dequantize', inputs: [from, scale, zero], outputs: [to], attrs: { axis: 0 } }];
}

function mapFeatures(
  growth: Growth,
  what: string,
  features: 'mean' | 'grid' | 'pyramid',
  given: ValueId,
): Part {
  const { shape: own, dtype, term } = growth.valueOf(given);
  const shape = asMap(own);
  const from = shape === own ? given : growth.value(`${what}/map`, 'float32', shape);
  const opening: Step[] =
    from === given ? [] : [{ op: 'reshape', inputs: [given], outputs: [from], attrs: {} }];
  const pools = dtype === 'float32' || !term ? new FloatPools(from) : new BytePools(growth, what, from, term);
  const [items = 0, channels = 0, height = 0, width = 0] = shape;
  const flat = (name: string, size: number) => growth.value(`${what}/${name}`, 'float32', [items, size]);
  if (features === 'mean') {
    const mean = flat('mean', channels);
    return { steps: [...opening, ...pools.mean(mean)], result: mean };
  }
  const sides = [height, width].map((side) =>
    features === 'grid' ? halves(side) : windows(side, Math.min(WINDOWS, side)),
  );
  const [rows, columns] = sides.map(({ count }) => count);
  const cells = growth.value(`${what}/windows`, 'float32', [items, channels, rows!, columns!]);
  const averages = flat('averages', channels * rows! * columns!);
  const maxima = flat('maxima', channels);
  const window: Window = {
    kernel: sides.map(({ kernel }) => kernel),
    strides: sides.map(({ stride }) => stride),
    pads: [0, 0, 0, 0],
    dilations: [1, 1],
  };
  const steps: Step[] = [
    ...opening,
    ...pools.averages(window, cells),
    { op: 'reshape', inputs: [cells], outputs: [averages], attrs: {} },
    ...pools.maxima(maxima),
  ];
  const seen = [averages, maxima];
  if (features === 'pyramid') {
    const meanSquares = flat('mean squares', channels);
    steps.push(...pools.meanSquares(meanSquares));
    seen.push(meanSquares);
  }
  const result = flat('features', widthOf(features, shape));
  steps.push({ op: 'concat', inputs: seen, outputs: [result], attrs: { axis: 1 } });
  return { steps, result };
}

type Window = Pick<Operations['pool'], 'kernel' | 'strides' | 'pads' | 'dilations'>;
const ALL = { countIncludePad: false, columnMajorIndices: false } as const;

/** Steps of the features of a map of floats. */
class FloatPools {
  constructor(private readonly from: ValueId) {}

  mean(to: ValueId): Step[] {
    return [{ op: 'globalPool', inputs: [this.from], outputs: [to], attrs: { kind: 'avg' } }];
  }

  averages(window: Window, to: ValueId): Step[] {
    return [{ op: 'pool', inputs: [this.from], outputs: [to], attrs: { kind: 'avg', ...window, ...ALL } }];
  }

  maxima(to: ValueId): Step[] {
    return [{ op: 'globalPool', inputs: [this.from], outputs: [to], attrs: { kind: 'max' } }];
  }

  meanSquares(to: ValueId): Step[] {
    return [{ op: 'globalPool', inputs: [this.from], outputs: [to], attrs: { kind: 'meanSquare' } }];
  }
}

/** The same of bytes: sums and maxima are exact integers, each of which becomes a float once. */
class BytePools {
  readonly #shape: readonly number[];
  /** One window: the whole map. */
  readonly #whole: Window;

  constructor(
    private readonly growth: Growth,
    private readonly what: string,
    private readonly from: ValueId,
    private readonly term: Term,
  ) {
    this.#shape = growth.valueOf(from).shape;
    this.#whole = { kernel: this.#shape.slice(2), strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] };
  }

  mean(to: ValueId): Step[] {
    const attrs = { terms: [this.#over(this.#whole, false)] as const, requant: NO_REQUANTISATION };
    return [{ op: 'qglobalPool', inputs: [this.from], outputs: [to], attrs }];
  }

  averages(window: Window, to: ValueId, squares = false): Step[] {
    const attrs = { ...window, squares, terms: [this.#over(window, squares)] as const };
    return [{ op: 'qpool', inputs: [this.from], outputs: [to], attrs }];
  }

  maxima(to: ValueId): Step[] {
    const { growth, what, from } = this;
    const { dtype } = growth.valueOf(from);
    const [items = 0, channels = 0] = this.#shape;
    const most = growth.value(`${what}/most`, dtype, [items, channels, 1, 1]);
    const flat = growth.value(`${what}/most of each`, dtype, [items, channels], undefined, this.term);
    return [
      { op: 'pool', inputs: [from], outputs: [most], attrs: { kind: 'max', ...this.#whole, ...ALL } },
      { op: 'reshape', inputs: [most], outputs: [flat], attrs: {} },
      ...dequantised(growth, what, flat, to),
    ];
  }

  meanSquares(to: ValueId): Step[] {
    const [items = 0, channels = 0] = this.#shape;
    const squares = this.growth.value(`${this.what}/squares`, 'float32', [items, channels, 1, 1]);
    return [
      ...this.averages(this.#whole, squares, true),
      { op: 'reshape', inputs: [squares], outputs: [to], attrs: {} },
    ];
  }

  /** The term that makes a sum over a window the mean. */
  #over({ kernel }: Window, squares: boolean): Term {
    const { zero, factor } = this.term;
    return { zero, factor: (squares ? factor ** 2 : factor) / sizeOf(kernel) };
  }
}

function firstRow(growth: Growth, what: string, from: ValueId): Part {
  const [items = 0, , width = 0] = growth.valueOf(from).shape;
  const row = growth.value(`${what}/row`, 'float32', [items, 1, width]);
  const result = growth.value(`${what}/first`, 'float32', [items, width]);
  const steps: Step[] = [
    { op: 'slice', inputs: [from], outputs: [row], attrs: { starts: [0, 0, 0], steps: [1, 1, 1] } },
    { op: 'reshape', inputs: [row], outputs: [result], attrs: {} },
  ];
  return { steps, result };
}

function firstAndMean(growth: Growth, what: string, from: ValueId): Part {
  const parts = [firstRow(growth, what, from), meanOfRows(growth, what, from)];
  const [items = 0, , width = 0] = growth.valueOf(from).shape;
  const result = growth.value(`${what}/tokens`, 'float32', [items, 2 * width]);
  const inputs = parts.map((part) => part.result);
  const steps = parts.flatMap((part) => part.steps);
  return { steps: [...steps, { op: 'concat', inputs, outputs: [result], attrs: { axis: 1 } }], result };
}

/** The input that marks the tokens of an item, for tokens of that shape. */
function maskOf({ inputs, values }: Program, [, tokens, ...rest]: readonly number[]): ValueId | undefined {
  const mask = rest.length === 1 ? inputs.find(({ name }) => name === 'attention_mask') : undefined;
  const shape = mask && values[mask.value]!.shape;
  return shape?.length === 2 && shape[1] === tokens ? mask!.value : undefined;
}

function meanOfRows(growth: Growth, what: string, from: ValueId): Part {
  const { shape } = growth.valueOf(from);
  const [items = 0, tokens = 0] = shape;
  const width = shape.at(-1)!;
  const result = growth.value(`${what}/rows`, 'float32', [items, width]);
  const mask = maskOf(growth.program, shape);
  if (mask === undefined) {
    const axes = range(shape.length).slice(1, -1);
    return { steps: [{ op: 'reduceMean', inputs: [from], outputs: [result], attrs: { axes } }], result };
  }
  const value = (name: string, ...lengths: number[]) =>
    growth.value(`${what}/${name}`, 'float32', [items, ...lengths]);
  const [marks, row, sum, flat] = [
    value('marks', tokens),
    value('row', 1, tokens),
    value('sum', 1, width),
    value('flat', width),
  ] as const;
  const [share, count] = [value('share', 1), value('count', 1)] as const;
  const length = growth.constant(`${what}/tokens`, Float32Array.of(tokens), [1, 1]);
  const steps: Step[] = [
    { op: 'cast', inputs: [mask], outputs: [marks], attrs: {} },
    { op: 'reshape', inputs: [marks], outputs: [row], attrs: {} },
    { op: 'matmul', inputs: [row, from], outputs: [sum], attrs: {} },
    { op: 'reshape', inputs: [sum], outputs: [flat], attrs: {} },
    { op: 'reduceMean', inputs: [marks], outputs: [share], attrs: { axes: [1] } },
    { op: 'binary', inputs: [share, length], outputs: [count], attrs: { kind: 'mul', act: NO_ACTIVATION } },
    { op: 'binary', inputs: [flat, count], outputs: [result], attrs: { kind: 'div', act: NO_ACTIVATION } },
  ];
  return { steps, result };
}

interface Windows {
  readonly count: number;
  readonly kernel: number;
  readonly stride: number;
}

/** Two windows that touch, or share the middle row. */
function halves(side: number): Windows {
  const kernel = Math.ceil(side / 2);
  return { count: 2, kernel, stride: side - kernel };
}

/** `count` windows that cover the side from end to end. */
function windows(side: number, count: number): Windows {
  const stride = Math.floor(side / count);
  return { count, kernel: side - (count - 1) * stride, stride };
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
  for (const [i, { weight, bias }] of layers.entries()) {
    const [items = 0, inputs = 0] = growth.valueOf(result).shape;
    const outputs = bias.length;
    const w = growth.constant(`${what}/weight ${i}`, weight, [outputs, inputs]);
    const b = growth.constant(`${what}/bias ${i}`, bias, [outputs]);
    const y = growth.value(`${what}/layer ${i}`, 'float32', [items, outputs]);
    const last = i === layers.length - 1;
    const act = last ? NO_ACTIVATION : ({ kind: 'relu', alpha: 0, beta: 0 } as const);
    steps.push({ op: 'gemm', inputs: [result, w, b, NONE], outputs: [y], attrs: { transB: true, act } });
    [hidden, result] = [result, y];
  }
  return { steps, result, hidden };
}
