import { broadcast } from '../../../numeric/shapes.js';
import type { ValueType } from '../../../tensor/tensor.js';
import {
  type BinaryKind,
  type CompareKind,
  type LogicalKind,
  NO_ACTIVATION,
  type ValueId,
} from '../../program/program.js';
import type { Node } from '../../read/graph.js';
import { dtypeOf, elementTypeName } from '../../read/tensor-proto.js';
import type { NodeLowering } from '../lowering.js';
import type { Operator, OperatorTable } from './operator.js';

/** The shape that all of `ids` broadcast to. */
export function broadcastOf(node: NodeLowering, ids: readonly ValueId[]): number[] {
  const shapes = ids.map((id) => node.shape(id));
  const shape = broadcast(...shapes);
  if (shape) return shape;
  const list = shapes.map((operand) => `[${operand}]`).join(' and ');
  return node.invalid(`shapes ${list} can't be broadcast to one another`);
}

/** The type that all operands must share. */
function commonType(node: NodeLowering, ids: readonly ValueId[]): ValueType {
  const { dtype } = node.value(ids[0]!);
  let same = true;
  for (let i = 1; i < ids.length; i++) same &&= node.value(ids[i]!).dtype === dtype;
  if (same) return dtype;
  const types = new Set(ids.map((id) => node.value(id).dtype));
  return node.invalid(`its inputs have different types (${[...types].join(', ')})`);
}

export function arithmetic(node: NodeLowering, kind: BinaryKind, a: ValueId, b: ValueId): ValueId {
  const dtype = commonType(node, [a, b]);
  if (dtype === 'bool') node.invalid('its inputs are bool; expected numbers');
  const shape = broadcastOf(node, [a, b]);
  return node.step('binary', [a, b], { dtype, shape }, { kind, act: NO_ACTIVATION });
}

/** Both operands. In opset 6 the second may be aligned with the first at `axis`. */
function operands(node: NodeLowering): [ValueId, ValueId] {
  const [a, b] = [node.input(0), node.input(1)];
  const axis = node.opset < 7 ? node.number('axis', -1) : -1;
  if (axis < 0) return [a, b];
  const trailing = Math.max(node.rank(a) - axis - node.rank(b), 0);
  return [a, node.reshape(b, [...node.shape(b), ...new Array<number>(trailing).fill(1)])];
}

function binary(kind: BinaryKind): Operator {
  return { lower: (node) => arithmetic(node, kind, ...operands(node)) };
}

function compare(node: NodeLowering, kind: CompareKind, a: ValueId, b: ValueId): ValueId {
  commonType(node, [a, b]);
  return node.step('compare', [a, b], { dtype: 'bool', shape: broadcastOf(node, [a, b]) }, { kind });
}

function comparison(kind: CompareKind): Operator {
  return { lower: (node) => compare(node, kind, ...operands(node)) };
}

function logical(kind: LogicalKind): Operator {
  return {
    lower: (node) => {
      const ids = kind === 'not' ? [node.input(0)] : operands(node);
      if (commonType(node, ids) !== 'bool') node.invalid('its inputs are not bool');
      return node.step('logical', ids, { dtype: 'bool', shape: broadcastOf(node, ids) }, { kind });
    },
  };
}

function where(node: NodeLowering): ValueId {
  const condition = node.input(0);
  if (node.value(condition).dtype !== 'bool') node.invalid('its condition is not bool');
  const ids = [condition, node.input(1), node.input(2)];
  const dtype = commonType(node, ids.slice(1));
  return node.step('where', ids, { dtype, shape: broadcastOf(node, ids) }, {});
}

/** fp16, bf16 and double are computed in float32. */
function unsupportedCast({ attributes }: Node): string | undefined {
  const to = Number(attributes.get('to'));
  return dtypeOf(to) ? undefined : `to ${elementTypeName(to)}`;
}

/** -x */
export function negated(node: NodeLowering, x: ValueId): ValueId {
  const { dtype } = node.value(x);
  if (dtype === 'float32') return arithmetic(node, 'mul', x, node.scalar(-1));
  return arithmetic(node, 'sub', node.cast(node.scalar(0), dtype), x);
}

/** A constant of one element that adds no axes to `other`; undefined for any other value. */
function constantBeside(node: NodeLowering, id: ValueId, other: ValueId): number | undefined {
  const { data, shape } = node.value(id);
  return data?.length === 1 && shape.length <= node.rank(other) ? Number(data[0]) : undefined;
}

/** A limit that is one constant is a clip, which kernels apply where they write. */
function extreme(node: NodeLowering, kind: 'min' | 'max', a: ValueId, b: ValueId): ValueId {
  if (node.value(a).data && !node.value(b).data) return extreme(node, kind, b, a);
  const limit = constantBeside(node, b, a);
  const { dtype, shape } = node.value(a);
  if (commonType(node, [a, b]) !== 'float32' || limit === undefined || Number.isNaN(limit)) {
    return arithmetic(node, kind, a, b);
  }
  const [alpha, beta] =
    kind === 'max' ? [limit, Number.POSITIVE_INFINITY] : [Number.NEGATIVE_INFINITY, limit];
  return node.step('unary', [a], { dtype, shape }, { act: { kind: 'clip', alpha, beta } });
}

/** Powers that are products, roots and reciprocals are computed as such. The exponent's type may differ from the base's. */
function pow(node: NodeLowering): ValueId {
  const [x, exponent] = [node.input(0), node.input(1)];
  const { dtype, shape } = node.value(x);
  if (dtype !== 'float32') {
    if (node.value(exponent).dtype !== 'float32')
      return arithmetic(node, 'pow', x, node.cast(exponent, dtype));
    return node.cast(arithmetic(node, 'pow', node.cast(x, 'float32'), exponent), dtype);
  }
  const act = (of: ValueId, kind: 'sqrt' | 'reciprocal') =>
    node.step('unary', [of], { dtype, shape }, { act: { kind, alpha: 0, beta: 0 } });
  const times = (a: ValueId) => arithmetic(node, 'mul', a, x);
  switch (constantBeside(node, exponent, x)) {
    case 1:
      return x;
    case 2:
      return times(x);
    case 3:
      return times(times(x));
    case 0.5:
      return act(x, 'sqrt');
    case -0.5:
      return act(act(x, 'sqrt'), 'reciprocal');
    case -1:
      return act(x, 'reciprocal');
    default:
      return arithmetic(node, 'pow', x, node.cast(exponent, 'float32'));
  }
}

function not(node: NodeLowering, x: ValueId): ValueId {
  return node.step('logical', [x], { dtype: 'bool', shape: node.shape(x) }, { kind: 'not' });
}

/** Infinities of the signs that are asked for. */
function isInf(node: NodeLowering): ValueId {
  const x = node.float(0);
  const [negative, positive] = [node.number('detect_negative', 1), node.number('detect_positive', 1)];
  const is = (limit: number) => compare(node, 'eq', x, node.scalar(limit));
  const output = { dtype: 'bool', shape: node.shape(x) } as const;
  if (!positive && !negative) return node.expand(node.constantOf('bool', [], Uint8Array.of(0)), output.shape);
  if (!positive) return is(Number.NEGATIVE_INFINITY);
  if (!negative) return is(Number.POSITIVE_INFINITY);
  const both = [is(Number.POSITIVE_INFINITY), is(Number.NEGATIVE_INFINITY)];
  return node.step('logical', both, output, { kind: 'or' });
}

function variadic(combine: (node: NodeLowering, a: ValueId, b: ValueId) => ValueId): Operator {
  return { lower: (node) => node.inputs().reduce((a, b) => combine(node, a, b)) };
}

export const ELEMENTWISE: OperatorTable = {
  Add: binary('add'),
  Sub: binary('sub'),
  Mul: binary('mul'),
  Div: binary('div'),
  Mod: {
    lower: (node) =>
      arithmetic(node, node.number('fmod', 0) === 0 ? 'mod' : 'fmod', node.input(0), node.input(1)),
  },
  Pow: { lower: pow },
  Sum: variadic((node, a, b) => arithmetic(node, 'add', a, b)),
  Min: variadic((node, a, b) => extreme(node, 'min', a, b)),
  Max: variadic((node, a, b) => extreme(node, 'max', a, b)),
  Mean: {
    lower: (node) => {
      const ids = node.inputs();
      const sum = ids.reduce((a, b) => arithmetic(node, 'add', a, b));
      return arithmetic(node, 'mul', sum, node.scalar(1 / ids.length));
    },
  },
  IsNaN: { lower: (node) => not(node, compare(node, 'eq', node.float(0), node.float(0))) },
  IsInf: { lower: isInf },
  Xor: {
    lower: (node) => {
      const ids = [node.input(0), node.input(1)] as const;
      if (commonType(node, ids) !== 'bool') node.invalid('its inputs are not bool');
      return not(node, compare(node, 'eq', ...ids));
    },
  },
  CastLike: { lower: (node) => node.cast(node.input(0), node.value(node.input(1)).dtype) },
  Neg: { lower: (node) => negated(node, node.input(0)) },
  Greater: comparison('gt'),
  GreaterOrEqual: comparison('ge'),
  Less: comparison('lt'),
  LessOrEqual: comparison('le'),
  Equal: comparison('eq'),
  And: logical('and'),
  Or: logical('or'),
  Not: logical('not'),
  Where: { lower: where },
  Cast: {
    lower: (node) => node.cast(node.input(0), dtypeOf(node.number('to', 0))!),
    unsupported: unsupportedCast,
  },
};
