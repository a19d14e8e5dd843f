import { broadcast } from '../../numeric/shapes.js';
import type { DataType } from '../../tensor.js';
import type { Node } from '../graph.js';
import type { NodeLowering } from '../lowering.js';
import {
  type BinaryKind,
  type CompareKind,
  type LogicalKind,
  NO_ACTIVATION,
  type ValueId,
} from '../program.js';
import { dtypeOf, elementTypeName } from '../tensor-proto.js';
import type { Operator, OperatorTable } from './operator.js';

function broadcastOf(node: NodeLowering, ids: readonly ValueId[]): number[] {
  const shapes = ids.map((id) => node.shape(id));
  const shape = broadcast(...shapes);
  const list = shapes.map((operand) => `[${operand}]`).join(' and ');
  return shape ?? node.invalid(`shapes ${list} can't be broadcast to one another`);
}

/** The type that all operands must share. */
function commonType(node: NodeLowering, ids: readonly ValueId[]): DataType {
  const types = [...new Set(ids.map((id) => node.value(id).dtype))];
  return types.length === 1
    ? types[0]!
    : node.invalid(`its inputs have different types (${types.join(', ')})`);
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

function negate(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype } = node.value(x);
  if (dtype === 'float32') return arithmetic(node, 'mul', x, node.scalar(-1));
  return arithmetic(node, 'sub', node.cast(node.scalar(0), dtype), x);
}

export const ELEMENTWISE: OperatorTable = {
  Add: binary('add'),
  Sub: binary('sub'),
  Mul: binary('mul'),
  Div: binary('div'),
  Sum: { lower: (node) => node.inputs().reduce((sum, next) => arithmetic(node, 'add', sum, next)) },
  Neg: { lower: negate },
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
