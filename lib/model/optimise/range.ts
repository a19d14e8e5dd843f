import { extremesOf, type Range } from '../../tensor/extremes.js';
import { INTEGER_RANGE, type TensorData } from '../../tensor/tensor.js';
import { type Activation, NONE, type ValueId } from '../program/program.js';
import { type ByteType, dequantised, isByteType } from './quantised-value.js';
import type { Region, WorkOp } from './region.js';

const ANY: Range = { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
/** Below the minimum of silu (-0.2785) and of hardSwish (-0.375). */
const SWISH_LOW = -0.4;

const found = new WeakMap<Region, Map<ValueId, Range>>();

/** Ranges that were found before the region changed hold still, but may be wider than what is known now. */
export function forgetRanges(region: Region): void {
  found.delete(region);
}

/** The range of `value`, derived from the steps that compute it. */
export function rangeOf(region: Region, value: ValueId): Range {
  const known = found.get(region) ?? new Map<ValueId, Range>();
  found.set(region, known);
  const pending = [value];
  for (let id = pending.at(-1); id !== undefined; id = pending.at(-1)) {
    const missing: ValueId[] = [];
    const range =
      known.get(id) ??
      rangeFrom(region, id, (input) => {
        const given = known.get(input);
        if (!given) missing.push(input);
        return given ?? ANY;
      });
    if (missing.length === 0) known.set(pending.pop()!, range);
    for (const input of missing) pending.push(input);
  }
  return known.get(value)!;
}

function rangeFrom(region: Region, id: ValueId, of: (input: ValueId) => Range): Range {
  const { data, dtype } = region.value(id);
  if (data) return rangeOfData(data);
  const producer = region.producer(id);
  if (producer) return rangeOfOp(region, producer, of);
  if (dtype === 'uint8' || dtype === 'bool') return { low: 0, high: 255 };
  return dtype === 'int8' ? { low: -128, high: 127 } : ANY;
}

/** Whether applying `act` to elements within a range leaves them as they are; most activations change any. */
export function changesNothing(act: Activation, range: () => Range): boolean {
  switch (act.kind) {
    case 'none':
      return true;
    case 'relu':
    case 'leakyRelu':
      return range().low >= 0;
    case 'clip': {
      const { low, high } = range();
      return low >= act.alpha && high <= act.beta;
    }
    default:
      return false;
  }
}

/** Constants with more elements, such as tables of embeddings, are not read for their range. */
const MAX_ELEMENTS = 2 ** 16;

function rangeOfData(data: TensorData): Range {
  const range = data.length > MAX_ELEMENTS ? ANY : extremesOf(data);
  return range.low <= range.high ? range : ANY;
}

function rangeOfOp(region: Region, op: WorkOp, of: (id: ValueId) => Range): Range {
  switch (op.op) {
    case 'conv':
    case 'gemm':
    case 'affine':
      return afterActivation(op.attrs.act, ANY);
    case 'unary':
      return afterActivation(op.attrs.act, of(op.inputs[0]!));
    case 'binary': {
      if (op.attrs.act.kind !== 'none') return afterActivation(op.attrs.act, ANY);
      if (region.value(op.outputs[0]!).dtype !== 'float32') return ANY;
      const [a, b] = [of(op.inputs[0]!), of(op.inputs[1]!)];
      if (op.attrs.kind === 'add') return { low: a.low + b.low, high: a.high + b.high };
      if (op.attrs.kind === 'sub') return { low: a.low - b.high, high: a.high - b.low };
      const positive = a.low >= 0 && b.low >= 0 && (op.attrs.kind === 'mul' || op.attrs.kind === 'div');
      return positive ? { low: 0, high: Number.POSITIVE_INFINITY } : ANY;
    }
    case 'select': {
      const skipped = afterActivation(op.attrs.skipActivation, of(op.inputs[2]!));
      return union(of(op.inputs[1]!), skipped);
    }
    case 'where':
      return union(of(op.inputs[1]!), of(op.inputs[2]!));
    case 'concat':
      return op.inputs.map(of).reduce(union);
    case 'pad':
      if (op.attrs.mode !== 'constant') return of(op.inputs[0]!);
      return union(of(op.inputs[0]!), op.inputs[1] === NONE ? { low: 0, high: 0 } : of(op.inputs[1]!));
    case 'pool':
      return op.attrs.kind === 'avg' ? union(of(op.inputs[0]!), { low: 0, high: 0 }) : of(op.inputs[0]!);
    case 'softmax':
      return op.attrs.log ? { low: Number.NEGATIVE_INFINITY, high: 0 } : { low: 0, high: 1 };
    case 'qconv':
    case 'qmatmul':
    case 'qbinary':
    case 'qglobalPool': {
      const { low, high } = op.attrs.requant;
      return isByteType(region.value(op.outputs[0]!).dtype) ? { low, high } : ANY;
    }
    case 'lookup':
      return of(op.inputs[1]!);
    case 'quantize': {
      const [low, high] = INTEGER_RANGE[region.value(op.outputs[0]!).dtype as ByteType];
      return { low, high };
    }
    case 'dequantize': {
      const found = dequantised(region, op.outputs[0]!);
      const { dtype } = region.value(op.inputs[0]!);
      if (found?.scales.length !== 1 || !isByteType(dtype)) return ANY;
      const [low, high] = INTEGER_RANGE[dtype];
      const real = (byte: number) => (byte - found.zeros[0]!) * found.scales[0]!;
      return { low: real(low), high: real(high) };
    }
    case 'cast':
      return region.value(op.inputs[0]!).dtype === 'bool' ? { low: 0, high: 1 } : ANY;
    case 'globalPool':
      return op.attrs.kind === 'meanSquare' ? ANY : of(op.inputs[0]!);
    case 'reduceMean':
    case 'gather':
    case 'transpose':
    case 'slice':
    case 'reshape':
    case 'expand':
      return of(op.inputs[0]!);
    default:
      return ANY;
  }
}

function afterActivation(act: Activation, range: Range): Range {
  const clamp = (low: number, high: number): Range => ({
    low: Math.min(Math.max(range.low, low), high),
    high: Math.max(Math.min(range.high, high), low),
  });
  switch (act.kind) {
    case 'none':
      return range;
    case 'relu':
      return clamp(0, Number.POSITIVE_INFINITY);
    case 'clip':
      return clamp(act.alpha, act.beta);
    case 'sigmoid':
    case 'hardSigmoid':
      return { low: 0, high: 1 };
    case 'tanh':
      return { low: -1, high: 1 };
    case 'silu':
    case 'hardSwish':
      return range.low >= 0 ? { low: 0, high: range.high } : { low: SWISH_LOW, high: ANY.high };
    case 'leakyRelu':
      return range.low >= 0 ? range : ANY;
    case 'abs':
    case 'exp':
    case 'softplus':
      return { low: 0, high: ANY.high };
    case 'erf':
    case 'sign':
    case 'softsign':
      return { low: -1, high: 1 };
    default:
      return ANY;
  }
}

function union(a: Range, b: Range): Range {
  return { low: Math.min(a.low, b.low), high: Math.max(a.high, b.high) };
}
