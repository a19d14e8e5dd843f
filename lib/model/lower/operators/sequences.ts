import { range } from '../../../numeric/shapes.js';
import { NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { part } from './layout.js';
import type { OperatorTable } from './operator.js';

/** Sequences exist during lowering only: their elements are known, and positions in them are constants. */
function splitToSequence(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', 0), shape.length);
  const whole = shape[axis]!;
  const given = node.optional(1);
  const single = given === NONE || node.rank(given) === 0;
  const share = given === NONE ? 1 : node.integers(given, 'split')[0]!;
  if (single && !(share > 0)) node.invalid(`its split is ${share}`);
  if (single) node.afford('float32', Math.ceil(whole / share));
  const lengths = single
    ? range(Math.ceil(whole / share)).map((i) => Math.min(share, whole - i * share))
    : node.integers(given, 'split');
  if (lengths.some((length) => length < 0) || lengths.reduce((sum, length) => sum + length, 0) !== whole) {
    node.invalid(`axis ${axis} of its input [${shape}] can't be split into [${lengths}]`);
  }
  const drops = given === NONE && node.number('keepdims', 1) === 0;
  let start = 0;
  return node.sequence(
    lengths.map((length) => {
      start += length;
      const slice = part(node, x, axis, start - length, start);
      return drops ? node.reshape(slice, shape.toSpliced(axis, 1)) : slice;
    }),
  );
}

function sequenceInsert(node: NodeLowering): ValueId {
  const elements = node.elements(node.input(0));
  const position = node.optionalScalar(2, 'position') ?? elements.length;
  if (Math.abs(position) > elements.length)
    node.invalid(`its position ${position} is outside a sequence of ${elements.length}`);
  return node.sequence(elements.toSpliced(position, 0, node.input(1)));
}

function sequenceAt(node: NodeLowering): ValueId {
  const elements = node.elements(node.input(0));
  const position = node.optionalScalar(1, 'position') ?? node.invalid('its position is missing');
  return (
    elements.at(position) ??
    node.invalid(`its position ${position} is outside a sequence of ${elements.length}`)
  );
}

/** Joins along `axis`, which is a new one if `new_axis`. */
function concatFromSequence(node: NodeLowering): ValueId {
  const isNew = node.number('new_axis', 0) !== 0;
  const given = node.elements(node.input(0));
  const first = given[0] ?? node.invalid('its sequence is empty');
  const axis = node.axis(node.number('axis', 0), node.rank(first) + Number(isNew));
  const values = isNew ? given.map((id) => node.reshape(id, node.shape(id).toSpliced(axis, 0, 1))) : given;
  const { dtype, shape } = node.value(values[0]!);
  const fits = values.every((id) => {
    const other = node.value(id);
    return (
      other.dtype === dtype &&
      other.shape.length === shape.length &&
      shape.every((n, d) => d === axis || n === other.shape[d])
    );
  });
  if (!fits) node.invalid(`the elements of its sequence can't be concatenated along axis ${axis}`);
  const length = values.reduce((sum, id) => sum + node.shape(id)[axis]!, 0);
  return node.step('concat', values, { dtype, shape: shape.with(axis, length) }, { axis });
}

export const SEQUENCES: OperatorTable = {
  SplitToSequence: { lower: splitToSequence, constantInputs: [1] },
  SequenceConstruct: { lower: (node) => node.sequence(node.inputs()) },
  SequenceEmpty: { lower: (node) => node.sequence([]) },
  SequenceInsert: { lower: sequenceInsert, constantInputs: [2] },
  SequenceAt: { lower: sequenceAt, constantInputs: [1] },
  SequenceLength: {
    lower: (node) =>
      node.constantOf('int64', [], BigInt64Array.of(BigInt(node.elements(node.input(0)).length))),
  },
  ConcatFromSequence: { lower: concatFromSequence },
};
