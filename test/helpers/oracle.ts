/**
 * A reference implementation of every step, element by element: no blocking, no strides, no typed arrays; sums in double
 * precision. It shares no code with the implementation under test.
 */
import type { KernelStep, KernelTensor } from 'lib/kernels/index.js';
import { type Activation, NO_ACTIVATION } from 'lib/model/program/program.js';
import { boundsOf } from './quantized-steps.js';

type Element = number | bigint;
type Index = readonly number[];

/** All indices of a shape, in row-major order. */
export function indices(shape: Index): number[][] {
  return shape.reduce<number[][]>(
    (all, dim) => all.flatMap((index) => Array.from({ length: dim }, (_, i) => [...index, i])),
    [[]],
  );
}

function ravel(shape: Index, index: Index): number {
  return index.reduce((flat, at, axis) => flat * shape[axis]! + at, 0);
}

function at(tensor: KernelTensor, index: Index): Element {
  return tensor.data[ravel(tensor.shape, index)]!;
}

function num(tensor: KernelTensor, index: Index): number {
  return Number(at(tensor, index));
}

/** Element of a tensor that is numpy-broadcast to the rank of `index`. */
function broadcast(tensor: KernelTensor, index: Index): Element {
  const lead = index.length - tensor.shape.length;
  return at(
    tensor,
    tensor.shape.map((dim, axis) => (dim === 1 ? 0 : index[lead + axis]!)),
  );
}

function sum(values: number[]): number {
  return values.reduce((total, v) => total + v, 0);
}

export function activation({ kind, alpha, beta }: Activation, x: number): number {
  const sigmoid = 1 / (1 + Math.exp(-x));
  switch (kind) {
    case 'none':
      return x;
    case 'relu':
      return Math.max(x, 0);
    case 'leakyRelu':
      return x < 0 ? alpha * x : x;
    case 'clip':
      return Math.min(Math.max(x, alpha), beta);
    case 'sigmoid':
      return sigmoid;
    case 'hardSigmoid':
      return Math.min(Math.max(alpha * x + beta, 0), 1);
    case 'hardSwish':
      return x * Math.min(Math.max(x / 6 + 0.5, 0), 1);
    case 'silu':
      return x * sigmoid;
    case 'tanh':
      return Math.tanh(x);
    case 'erf':
      return erf(x);
    case 'gelu':
      // At -Infinity its limit, where the formula is infinity times zero.
      return x === Number.NEGATIVE_INFINITY ? 0 : 0.5 * x * (1 + erf(x / Math.sqrt(2)));
    case 'geluTanh':
      return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    case 'elu':
      return x < 0 ? alpha * (Math.exp(x) - 1) : x;
    case 'selu':
      return beta * (x < 0 ? alpha * (Math.exp(x) - 1) : x);
    case 'celu':
      return Math.max(x, 0) + Math.min(0, alpha * (Math.exp(x / alpha) - 1));
    case 'softplus':
      return x > 40 ? x : Math.log(1 + Math.exp(x));
    case 'softsign':
      return x / (1 + Math.abs(x));
    case 'mish':
      return x * Math.tanh(x > 40 ? x : Math.log(1 + Math.exp(x)));
    case 'exp':
      return Math.exp(x);
    case 'log':
      return Math.log(x);
    case 'sqrt':
      return Math.sqrt(x);
    case 'reciprocal':
      return 1 / x;
    case 'abs':
      return x < 0 ? -x : x;
    case 'sign':
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case 'floor':
      return Math.floor(x);
    case 'ceil':
      return Math.ceil(x);
    case 'round':
      return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
    case 'sin':
    case 'cos': {
      if (Math.abs(x) === Number.POSITIVE_INFINITY) return Number.NaN;
      const limited = Math.max(-1048576, Math.min(x, 1048576));
      return kind === 'sin' ? Math.sin(limited) : Math.cos(limited);
    }
  }
}

/** Integrates by Simpson's rule. */
function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Math.sign(x);
  const n = 1000;
  const at = (i: number) => Math.exp(-(((x * i) / n) ** 2));
  let total = at(0) + at(n);
  for (let i = 1; i < n; i++) total += (i % 2 === 1 ? 4 : 2) * at(i);
  return (2 / Math.sqrt(Math.PI)) * (x / n / 3) * total;
}

/** Positions in x of the taps of the window at `out`, and which of them are outside. */
function taps(
  kernel: Index,
  out: Index,
  window: { strides: Index; pads: Index; dilations: Index },
  inner: Index,
): { tap: number[]; position: number[]; inside: boolean; padded: boolean }[] {
  return indices(kernel).map((tap) => {
    const position = tap.map(
      (k, i) => out[i]! * window.strides[i]! + k * window.dilations[i]! - window.pads[i]!,
    );
    return {
      tap,
      position,
      inside: position.every((p, i) => p >= 0 && p < inner[i]!),
      padded: position.every((p, i) => p < inner[i]! + window.pads[kernel.length + i]!),
    };
  });
}

function integerBinary(kind: string, a: bigint, b: bigint): bigint {
  if (kind === 'add') return a + b;
  if (kind === 'sub') return a - b;
  if (kind === 'mul') return a * b;
  if (kind === 'min') return a < b ? a : b;
  if (kind === 'max') return a < b ? b : a;
  if (kind === 'pow') return integerPower(a, b);
  if (b === 0n) return 0n;
  if (kind === 'div') return a / b;
  return kind === 'fmod' ? a % b : ((a % b) + b) % b;
}

/** Modulo 2^64. */
function integerPower(base: bigint, exponent: bigint): bigint {
  if (exponent < 0n) {
    if (base !== 1n && base !== -1n) return 0n;
    return exponent % 2n === 0n ? 1n : base;
  }
  if (exponent === 0n) return 1n;
  const half = integerPower(BigInt.asIntN(64, base * base), exponent / 2n);
  return exponent % 2n === 0n ? half : BigInt.asIntN(64, base * half);
}

function floatBinary(kind: string, a: number, b: number): number {
  if (kind === 'add') return a + b;
  if (kind === 'sub') return a - b;
  if (kind === 'min') return Math.min(a, b);
  if (kind === 'max') return Math.max(a, b);
  if (kind === 'fmod') return a % b;
  if (kind === 'mod') return a % b === 0 || a % b < 0 === b < 0 ? a % b : (a % b) + b;
  if (kind === 'pow')
    return Math.abs(a) === 1 && !(Math.abs(b) < 1e30) && (a === 1 || !Number.isNaN(b)) ? 1 : a ** b;
  return kind === 'mul' ? a * b : a / b;
}

/** Bits of a type of integers, and whether it has a sign; `bool` is stored in a byte. */
function integerType(dtype: string): { bits: number; signed: boolean } {
  return { bits: Number(/\d+/.exec(dtype)?.[0] ?? 8), signed: dtype.startsWith('int') };
}

function wrap(value: bigint, dtype: string): Element {
  const { bits, signed } = integerType(dtype);
  const whole = signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
  return bits === 64 ? whole : Number(whole);
}

export function castElement(value: Element, from: string, to: string): Element {
  if (to === from) return value;
  if (to === 'bool') return Number(value) === 0 ? 0 : 1;
  if (to === 'float32') return typeof value === 'bigint' ? nearestFloat(value) : Math.fround(value);
  if (from !== 'float32') return wrap(BigInt(value), to);
  const { bits, signed } = integerType(to);
  const low = signed ? -(2n ** BigInt(bits - 1)) : 0n;
  const high = low + 2n ** BigInt(bits) - 1n;
  const x = Number(value);
  if (Number.isNaN(x)) return bits === 64 ? 0n : 0;
  let whole: bigint;
  if (Math.abs(x) > 1e30) whole = x > 0 ? high : low;
  else whole = BigInt(Math.trunc(x));
  if (whole < low) whole = low;
  if (whole > high) whole = high;
  return bits === 64 ? whole : Number(whole);
}

/** The nearest float32, of two equally near ones the even one. */
function nearestFloat(value: bigint): number {
  if (value >= -(2n ** 24n) && value <= 2n ** 24n) return Number(value);
  const [near] = new Int32Array(Float32Array.of(Number(value)).buffer);
  // All float32 of this size are integers.
  const candidates = [near! - 1, near!, near! + 1].map((bits) => {
    const [number] = new Float32Array(Int32Array.of(bits).buffer);
    const distance = BigInt(number!) - value;
    return { number: number!, odd: bits & 1, distance: distance < 0n ? -distance : distance };
  });
  candidates.sort((a, b) => Number(a.distance - b.distance) || a.odd - b.odd);
  return candidates[0]!.number;
}

function compareElements(kind: string, a: Element, b: Element): boolean {
  if (kind === 'gt') return a > b;
  if (kind === 'ge') return a >= b;
  if (kind === 'lt') return a < b;
  if (kind === 'le') return a <= b;
  return a === b;
}

/** Maps an index in a padded axis to one in the axis, null for the pad value; by walking, not by a formula. */
function padSource(i: number, size: number, mode: string): number | null {
  if (i >= 0 && i < size) return i;
  if (mode === 'constant') return null;
  if (mode === 'edge') return i < 0 ? 0 : size - 1;
  let p = i;
  while (p < 0 || p >= size) {
    if (mode === 'wrap') p += p < 0 ? size : -size;
    else if (size === 1) p = 0;
    else p = p < 0 ? -p : 2 * (size - 1) - p;
  }
  return p;
}

/**
 * All outputs of a step as plain lists of elements. Float results are not rounded to float32.
 * @param shapes shapes of the outputs
 */
export function evaluate(
  step: KernelStep,
  inputs: readonly (KernelTensor | undefined)[],
  outputs: readonly { dtype: string; shape: Index }[],
): Element[][] {
  const x = inputs[0]!;
  const { shape } = outputs[0]!;
  const each = (f: (index: number[]) => Element): Element[][] => [indices(shape).map(f)];
  switch (step.op) {
    case 'conv': {
      const [, w, bias, residual] = inputs;
      const { group, act } = step.attrs;
      const perGroup = w!.shape[0]! / group;
      return each(([n, m, ...out]) => {
        const firstChannel = Math.floor(m! / perGroup) * w!.shape[1]!;
        const products = taps(w!.shape.slice(2), out, step.attrs, x.shape.slice(2))
          .filter(({ inside }) => inside)
          .flatMap(({ tap, position }) =>
            Array.from(
              { length: w!.shape[1]! },
              (_, c) => num(x, [n!, firstChannel + c, ...position]) * num(w!, [m!, c, ...tap]),
            ),
          );
        const extra = (bias ? num(bias, [m!]) : 0) + (residual ? num(residual, [n!, m!, ...out]) : 0);
        return activation(act, sum(products) + extra);
      });
    }
    case 'gemm': {
      const [, b, c, residual] = inputs;
      return each((index) => {
        const [row, j] = [index.slice(0, -1), index.at(-1)!];
        const terms = Array.from(
          { length: x.shape.at(-1)! },
          (_, k) => num(x, [...row, k]) * num(b!, step.attrs.transB ? [j, k] : [k, j]),
        );
        const extra = (c ? num(c, [j]) : 0) + (residual ? num(residual, index) : 0);
        return activation(step.attrs.act, sum(terms) + extra);
      });
    }
    case 'matmul': {
      const b = inputs[1]!;
      const depth = x.shape[x.shape.length - 1]!;
      return each((index) => {
        const batch = index.slice(0, -2);
        const [i, j] = index.slice(-2);
        return sum(
          Array.from(
            { length: depth },
            (_, k) =>
              Number(broadcast(stack(x), [...batch, ravel(x.shape.slice(-2), [i!, k])])) *
              Number(broadcast(stack(b), [...batch, ravel(b.shape.slice(-2), [k, j!])])),
          ),
        );
      });
    }
    case 'affine':
      return each((index) =>
        activation(
          step.attrs.act,
          num(x, index) * num(inputs[1]!, [index[1]!]) + num(inputs[2]!, [index[1]!]),
        ),
      );
    case 'unary':
      return each((index) => activation(step.attrs.act, num(x, index)));
    case 'binary': {
      const { kind, act } = step.attrs;
      return each((index) => {
        const [a, b] = [broadcast(x, index), broadcast(inputs[1]!, index)];
        if (x.dtype !== 'float32') return wrap(integerBinary(kind, BigInt(a), BigInt(b)), x.dtype);
        return activation(act, Math.fround(floatBinary(kind, Number(a), Number(b))));
      });
    }
    case 'compare':
      return each((index) =>
        compareElements(step.attrs.kind, broadcast(x, index), broadcast(inputs[1]!, index)) ? 1 : 0,
      );
    case 'logical':
      return each((index) => {
        const a = broadcast(x, index) !== 0;
        if (step.attrs.kind === 'not') return a ? 0 : 1;
        const b = broadcast(inputs[1]!, index) !== 0;
        return (step.attrs.kind === 'and' ? a && b : a || b) ? 1 : 0;
      });
    case 'where':
      return each((index) => broadcast(inputs[broadcast(x, index) !== 0 ? 1 : 2]!, index));
    case 'cast':
      return each((index) => castElement(at(x, index), x.dtype, outputs[0]!.dtype));
    case 'pool':
      return evaluatePool(step, x, shape, outputs.length > 1);
    case 'globalPool':
      return each(([n, c]) => {
        const values = indices(x.shape.slice(2)).map((position) => num(x, [n!, c!, ...position]));
        if (step.attrs.kind === 'max') return Math.max(...values);
        const terms = step.attrs.kind === 'avg' ? values : values.map((value) => value ** 2);
        return sum(terms) / values.length;
      });
    case 'reduceMean': {
      const kept = x.shape.map((_, axis) => axis).filter((axis) => !step.attrs.axes.includes(axis));
      const groups = new Map<string, number[]>();
      for (const index of indices(x.shape)) {
        const key = kept.map((axis) => index[axis]).join();
        groups.set(key, [...(groups.get(key) ?? []), num(x, index)]);
      }
      return [[...groups.values()].map((values) => sum(values) / values.length)];
    }
    case 'softmax':
      return each((index) => {
        const line = along(x, index, step.attrs.axis);
        const max = Math.max(...line);
        const total = sum(line.map((v) => Math.exp(v - max)));
        const shifted = num(x, index) - max;
        return step.attrs.log ? shifted - Math.log(total) : Math.exp(shifted) / total;
      });
    case 'layerNorm': {
      const [, scale, shift] = inputs;
      return each((index) => {
        const line = along(x, index, step.attrs.axis);
        const mean = sum(line) / line.length;
        const variance = sum(line.map((v) => (v - mean) ** 2)) / line.length;
        const place = [index[step.attrs.axis]!];
        const centred = (num(x, index) - mean) / Math.sqrt(variance + step.attrs.epsilon);
        return centred * (scale ? num(scale, place) : 1) + (shift ? num(shift, place) : 0);
      });
    }
    case 'attention': {
      const { attrs } = step;
      const element = (i: number, view: 'q' | 'k' | 'v' | 'mask', [b, h, row, column]: Index) => {
        const { offset, ...strides } = attrs[view];
        const place = b! * strides.batch + h! * strides.head + row! * strides.row + column! * strides.column;
        return inputs[i] ? Number(inputs[i].data[offset + place]) : 0;
      };
      const list = (length: number, f: (i: number) => number) => Array.from({ length }, (_, i) => f(i));
      const to = new Array<number>(attrs.batch * attrs.heads * attrs.queries * attrs.valueDepth);
      for (const [b, h, i] of indices([attrs.batch, attrs.heads, attrs.queries]) as [
        number,
        number,
        number,
      ][]) {
        const scores = list(attrs.keys, (j) => {
          const terms = list(
            attrs.depth,
            (d) => element(0, 'q', [b, h, i, d]) * element(1, 'k', [b, h, j, d]),
          );
          const [score, own] = [attrs.scale * sum(terms), element(3, 'mask', [b, h, i, j])];
          if (!attrs.replaces) return score + own;
          return own < 0 ? own : score;
        });
        const weights = scores.map((score) => Math.exp(score - Math.max(...scores)));
        for (let d = 0; d < attrs.valueDepth; d++) {
          const value =
            sum(weights.map((weight, j) => weight * element(2, 'v', [b, h, j, d]))) / sum(weights);
          to[b * attrs.y.batch + h * attrs.y.head + i * attrs.y.row + d * attrs.y.column] = value;
        }
      }
      return [to];
    }
    case 'argMax': {
      const { axis, selectLast } = step.attrs;
      const axisAt = (index: number[]) => (shape.length < x.shape.length ? insert(index, axis, 0) : index);
      return each((index) => {
        const line = along(x, axisAt(index), axis);
        const best = line.some(Number.isNaN) ? Number.NaN : Math.max(...line);
        const same = (v: number) => Object.is(v, best) || v === best;
        return BigInt(selectLast ? line.findLastIndex(same) : line.findIndex(same));
      });
    }
    case 'topK': {
      const { axis, largest } = step.attrs;
      const places = (index: number[]) => {
        const line = Array.from({ length: x.shape[axis]! }, (_, k) => at(x, index.with(axis, k)));
        const order = (v: Element) => (Number.isNaN(v) ? Number.POSITIVE_INFINITY : v);
        const above = (a: Element, b: Element) =>
          Number(order(a) > order(b)) - Number(order(a) < order(b)) ||
          Number(Number.isNaN(a)) - Number(Number.isNaN(b));
        const sorted = [...line.keys()].sort(
          (a, b) => (largest ? above(line[b]!, line[a]!) : above(line[a]!, line[b]!)) || a - b,
        );
        return sorted[index[axis]!]!;
      };
      const found = indices(shape).map((index) => ({ index, place: places(index) }));
      return [
        found.map(({ index, place }) => at(x, index.with(axis, place))),
        found.map(({ place }) => BigInt(place)),
      ];
    }
    case 'oneHot': {
      const { axis, depth } = step.attrs;
      return each((index) => {
        const asked = Math.trunc(
          num(
            x,
            index.filter((_, i) => i !== axis),
          ),
        );
        const hot = index[axis] === asked || (asked < 0 && index[axis] === asked + depth);
        return at(inputs[1]!, [hot ? 1 : 0]);
      });
    }
    case 'gather': {
      const { axis } = step.attrs;
      const ids = inputs[1]!;
      return each((index) => {
        const asked = num(ids, index.slice(axis, axis + ids.shape.length));
        const chosen = asked < 0 ? asked + x.shape[axis]! : asked;
        return at(x, [...index.slice(0, axis), chosen, ...index.slice(axis + ids.shape.length)]);
      });
    }
    case 'transpose':
      return each((index) => {
        const source: number[] = [];
        for (const [i, axis] of step.attrs.perm.entries()) source[axis] = index[i]!;
        return at(x, source);
      });
    case 'pad': {
      const { pads, mode } = step.attrs;
      const rank = x.shape.length;
      return each((index) => {
        const source = index.map((i, axis) => {
          const [begin, end] = [pads[axis]!, pads[axis + rank]!];
          const size = x.shape[axis]! + Math.min(begin, 0) + Math.min(end, 0);
          const p = padSource(i - Math.max(begin, 0), size, mode);
          return p === null ? null : p - Math.min(begin, 0);
        });
        if (source.includes(null)) return inputs[1] ? at(inputs[1], []) : castElement(0, 'float32', x.dtype);
        return at(x, source as number[]);
      });
    }
    case 'slice':
      return each((index) =>
        at(
          x,
          index.map((i, axis) => step.attrs.starts[axis]! + i * step.attrs.steps[axis]!),
        ),
      );
    case 'concat': {
      const { axis } = step.attrs;
      return each((index) => {
        let rest = index[axis]!;
        const source = inputs.find((tensor) => {
          if (rest < tensor!.shape[axis]!) return true;
          rest -= tensor!.shape[axis]!;
          return false;
        })!;
        return at(
          source,
          index.map((i, a) => (a === axis ? rest : i)),
        );
      });
    }
    case 'reduce': {
      const { kind, axes } = step.attrs;
      const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
      const groups = new Map<string, Element[]>();
      for (const index of indices(x.shape)) {
        const key = kept.map((axis) => index[axis]).join();
        groups.set(key, [...(groups.get(key) ?? []), at(x, index)]);
      }
      return [[...groups.values()].map((values) => reduced(kind, values, x.dtype))];
    }
    case 'cumSum': {
      const { axis, exclusive, reverse } = step.attrs;
      return each((index) => {
        const place = index[axis]!;
        const line = Array.from({ length: x.shape[axis]! }, (_, k) => k).filter((k) =>
          k === place ? !exclusive : reverse ? k > place : k < place,
        );
        const values = line.map((k) => at(x, index.with(axis, k)));
        return values.length === 0 ? wrapped(0n, x.dtype) : reduced('sum', values, x.dtype);
      });
    }
    case 'resample': {
      const { axis } = step.attrs;
      const [, places, weights] = inputs;
      const taps = Array.from({ length: places!.shape[1]! }, (_, k) => k);
      return each((index) =>
        sum(
          taps.map((k) => {
            const tap = [index[axis]!, k];
            return num(weights!, tap) * num(x, index.with(axis, num(places!, tap)));
          }),
        ),
      );
    }
    case 'gatherElements': {
      const { axis } = step.attrs;
      return each((index) => at(x, index.with(axis, positive(num(inputs[1]!, index), x.shape[axis]!))));
    }
    case 'gatherNd': {
      const { batchDims } = step.attrs;
      const ids = inputs[1]!;
      return each((index) => {
        const row = index.slice(0, ids.shape.length - 1);
        return at(x, [
          ...index.slice(0, batchDims),
          ...named(ids, row, x, batchDims),
          ...index.slice(row.length),
        ]);
      });
    }
    case 'scatterElements':
    case 'scatterNd': {
      const [, ids, updates] = inputs;
      const result = [...x.data] as Element[];
      for (const index of indices(updates!.shape)) {
        const row = index.slice(0, ids!.shape.length - 1);
        const place =
          step.op === 'scatterNd'
            ? [...named(ids!, row, x, 0), ...index.slice(row.length)]
            : index.with(step.attrs.axis, positive(num(ids!, index), x.shape[step.attrs.axis]!));
        const flat = ravel(x.shape, place);
        const update = at(updates!, index);
        const { reduction } = step.attrs;
        const kind = ({ add: 'sum', mul: 'prod', min: 'min', max: 'max' } as const)[reduction as 'add'];
        if (reduction === 'set') result[flat] = update;
        else if (x.dtype === 'bool') {
          const either = reduction === 'add' || reduction === 'max';
          result[flat] = (
            either
              ? Number(result[flat]) + Number(update) > 0
              : Number(result[flat]) * Number(update) > 0
          )
            ? 1
            : 0;
        } else {
          const combined = reduced(kind, [result[flat]!, update], x.dtype);
          result[flat] = x.dtype === 'float32' ? Math.fround(combined as number) : combined;
        }
      }
      return [result];
    }
    case 'reshape':
      return [[...x.data]];
    case 'expand':
      return each((index) => broadcast(x, index));
    case 'quantize':
      return each((index) =>
        requantised(num(x, index) / one(inputs[1], index[step.attrs.axis]), {
          zero: one(inputs[2], index[step.attrs.axis]),
          ...boundsOf(outputs[0]!.dtype),
        }),
      );
    case 'dequantize':
      return each(
        (index) =>
          Math.fround(num(x, index) - one(inputs[2], index[step.attrs.axis])) *
          one(inputs[1], index[step.attrs.axis]),
      );
    case 'dynamicQuantize': {
      const values = Array.from(x.data, Number);
      const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
      const scale = Math.fround((high - low) / 255) || 1;
      const zero = requantised(-low / scale, { zero: 0, low: 0, high: 255 });
      const quantised = each((index) => requantised(num(x, index) / scale, { zero, low: 0, high: 255 }));
      return [...quantised, [scale], [zero]];
    }
    case 'qconv':
    case 'qmatmul': {
      const [, w, bias, , xZero, wZero] = inputs;
      const last = shape.length - 1;
      const swap = step.op === 'qmatmul' && step.attrs.transB;
      const channelOf = (index: Index) => index[step.op === 'qconv' ? 0 : index.length - (swap ? 2 : 1)];
      const right = swap ? swapped(w!) : w!;
      const plain = (tensor: KernelTensor, zero: (index: Index) => number): KernelTensor => ({
        dtype: 'float32',
        shape: tensor.shape,
        data: Float32Array.from(indices(tensor.shape), (index) => num(tensor, index) - zero(index)),
      });
      const a = plain(x, () => one(xZero, 0));
      const b = swap
        ? swapped(plain(w!, (index) => one(wZero, channelOf(index))))
        : plain(right, (index) => one(wZero, channelOf(index)));
      const inner =
        step.op === 'qconv'
          ? ({ op: 'conv', attrs: { ...step.attrs, act: NO_ACTIVATION } } as const)
          : ({ op: 'matmul', attrs: {} } as const);
      const [sums] = evaluate(inner, [a, b], outputs) as [number[]];
      const { dtype } = outputs[0]!;
      return each((index) => {
        const channel = index[step.op === 'qconv' ? 1 : last]!;
        const acc = sums[ravel(shape, index)]!;
        if (dtype === 'int32') return acc;
        const factor = one(inputs[3], channel);
        const addend = bias ? num(bias, [channel]) : 0;
        if (dtype !== 'float32') return requantised(Math.fround(acc + addend) * factor, step.attrs.requant);
        return bias?.dtype === 'float32'
          ? Math.fround(acc) * factor + addend
          : Math.fround(acc + addend) * factor;
      });
    }
    case 'qbinary': {
      const {
        kind,
        terms: [first, second],
        requant,
      } = step.attrs;
      return each((index) => {
        const p = Number(broadcast(x, index)) - first.zero;
        const q = Number(broadcast(inputs[1]!, index)) - second.zero;
        const [f, g] = [Math.fround(first.factor), Math.fround(second.factor)];
        return requantised(kind === 'mul' ? p * q * f : p * f + Math.fround(q * g), requant);
      });
    }
    case 'qglobalPool': {
      const [{ zero, factor }] = step.attrs.terms;
      return each(([n, c]) => {
        const values = indices(x.shape.slice(2)).map((position) => num(x, [n!, c!, ...position]) - zero);
        const v = sum(values) * Math.fround(factor);
        return outputs[0]!.dtype === 'float32' ? v : requantised(v, step.attrs.requant);
      });
    }
    case 'qpool': {
      const { kernel, squares, terms } = step.attrs;
      const inner = x.shape.slice(2);
      return each(([n, c, ...out]) => {
        const cells = taps(kernel, out, step.attrs, inner).filter(({ inside }) => inside);
        const numbers = cells.map(({ position }) => num(x, [n!, c!, ...position]) - terms[0].zero);
        return sum(squares ? numbers.map((v) => v ** 2) : numbers) * Math.fround(terms[0].factor);
      });
    }
    case 'lookup':
      return each((index) => at(inputs[1]!, [(num(x, index) + 256) % 256]));
  }
}

/** The element of a scale or zero point for position `i`; 0 for an absent one. */
function one(tensor: KernelTensor | undefined, i = 0): number {
  if (!tensor) return 0;
  return Number(tensor.data[tensor.data.length === 1 ? 0 : i]);
}

function requantised(v: number, { zero, low, high }: { zero: number; low: number; high: number }): number {
  const rounded = activation({ kind: 'round', alpha: 0, beta: 0 }, Math.fround(v));
  return Math.min(Math.max(rounded, low - zero), high - zero) + zero;
}

/** The last two axes swapped. */
function swapped(tensor: KernelTensor): KernelTensor {
  const turn = (index: Index) => [...index.slice(0, -2), index.at(-1)!, index.at(-2)!];
  const shape = turn(tensor.shape);
  return { dtype: 'float32', shape, data: Float32Array.from(indices(shape), (i) => num(tensor, turn(i))) };
}

function positive(index: number, length: number): number {
  return index < 0 ? index + length : index;
}

/** The positions that a row of indices names behind the first `lead` axes. */
function named(ids: KernelTensor, row: Index, x: KernelTensor, lead: number): number[] {
  return Array.from({ length: ids.shape.at(-1)! }, (_, k) =>
    positive(num(ids, [...row, k]), x.shape[lead + k]!),
  );
}

function wrapped(value: bigint, dtype: string): Element {
  return dtype === 'float32' ? Number(value) : wrap(value, dtype);
}

function reduced(kind: 'sum' | 'prod' | 'min' | 'max', values: Element[], dtype: string): Element {
  if (dtype === 'float32') {
    const list = values.map(Number);
    if (kind === 'sum') return sum(list);
    return kind === 'prod' ? list.reduce((a, b) => a * b) : Math[kind](...list);
  }
  const combine = {
    sum: (a: bigint, b: bigint) => a + b,
    prod: (a: bigint, b: bigint) => a * b,
    min: (a: bigint, b: bigint) => (a < b ? a : b),
    max: (a: bigint, b: bigint) => (a < b ? b : a),
  }[kind];
  return wrap(values.map(BigInt).reduce(combine), dtype);
}

/** Merges the last two axes, so that the others broadcast. */
function stack(tensor: KernelTensor): KernelTensor {
  const [rows, columns] = tensor.shape.slice(-2);
  return { ...tensor, shape: [...tensor.shape.slice(0, -2), rows! * columns!] };
}

function insert(index: Index, axis: number, value: number): number[] {
  return [...index.slice(0, axis), value, ...index.slice(axis)];
}

/** The elements of the line through `index` along `axis`. */
function along(x: KernelTensor, index: Index, axis: number): number[] {
  return Array.from({ length: x.shape[axis]! }, (_, k) =>
    num(
      x,
      index.map((i, a) => (a === axis ? k : i)),
    ),
  );
}

function evaluatePool(
  step: Extract<KernelStep, { op: 'pool' }>,
  x: KernelTensor,
  shape: Index,
  withIndices: boolean,
): Element[][] {
  const { kind, kernel, countIncludePad, columnMajorIndices } = step.attrs;
  const inner = x.shape.slice(2);
  const values: number[] = [];
  const places: bigint[] = [];
  for (const [n, c, ...out] of indices(shape)) {
    const window = taps(kernel, out, step.attrs, inner);
    const cells = window.filter(({ inside }) => inside);
    const found = cells.map(({ position }) => num(x, [n!, c!, ...position]));
    if (kind === 'avg') {
      const count = countIncludePad ? window.filter(({ padded }) => padded).length : cells.length;
      values.push(count === 0 ? 0 : sum(found) / count);
      continue;
    }
    const best = Math.max(...found);
    values.push(best);
    const first = found.findIndex((v) => Object.is(v, best) || v === best);
    if (first < 0) {
      places.push(-1n);
      continue;
    }
    const { position } = cells[first]!;
    const plane = ravel(x.shape.slice(0, 2), [n!, c!]) * inner.reduce((a, b) => a * b, 1);
    const inPlane = columnMajorIndices
      ? ravel([...inner].reverse(), [...position].reverse())
      : ravel(inner, position);
    places.push(BigInt(plane + inPlane));
  }
  return withIndices ? [values, places] : [values];
}
