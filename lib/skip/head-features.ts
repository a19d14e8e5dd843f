/** The steps that compute what a head reads of a feature map or of tokens. */
import type { Operations } from '../kernels/operations.js';
import type { Growth } from '../model/program/grow.js';
import {
  NO_ACTIVATION,
  NO_REQUANTISATION,
  type Program,
  type Step,
  type Term,
  type ValueId,
} from '../model/program/program.js';
import { range, sizeOf } from '../numeric/shapes.js';
import { ARRAY_OF } from '../tensor/tensor.js';
import { asMap, type Part, type RowFeatures, WINDOWS, widthOf } from './head.js';

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
    const max = growth.value(`${what}/most`, dtype, [items, channels, 1, 1]);
    const flat = growth.value(`${what}/most of each`, dtype, [items, channels], undefined, this.term);
    return [
      { op: 'pool', inputs: [from], outputs: [max], attrs: { kind: 'max', ...this.#whole, ...ALL } },
      { op: 'reshape', inputs: [max], outputs: [flat], attrs: {} },
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
