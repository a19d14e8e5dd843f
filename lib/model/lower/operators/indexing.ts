import { range, sameShape } from '../../../numeric/shapes.js';
import { extremesOf } from '../../../tensor/extremes.js';
import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { part } from './layout.js';
import type { OperatorTable } from './operator.js';

/** numpy.take along one axis. */
function gather(node: NodeLowering): ValueId {
  const [data, indices] = [node.input(0), node.input(1)];
  const { dtype, shape } = node.value(data);
  const axis = node.axis(node.number('axis', 0), shape.length);
  const index = node.value(indices);
  if (index.dtype !== 'int32' && index.dtype !== 'int64') {
    node.invalid(`its indices are ${index.dtype}; expected int32 or int64`);
  }
  if (index.data && index.data.length > 0) {
    const { low, high } = extremesOf(index.data);
    const beyond = low < -shape[axis]! ? low : high;
    if (beyond < -shape[axis]! || beyond >= shape[axis]!)
      node.invalid(`index ${beyond} is outside axis ${axis} of its input [${shape}]`);
  }
  const output = { dtype, shape: [...shape.slice(0, axis), ...index.shape, ...shape.slice(axis + 1)] };
  return node.step('gather', [data, indices], output, { axis });
}

/** Bounds are attributes up to opset 9, inputs since then; they are clamped as ONNX says: with a negative step, too, the first one is inside. */
function slice(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype, shape } = node.value(x);
  const asInputs = node.opset >= 10;
  const list = (index: number, name: string) =>
    asInputs ? node.optionalIntegers(index, name) : node.numbers(name);
  const begins = list(1, 'starts') ?? node.invalid('its starts are missing');
  const ends = list(2, 'ends') ?? node.invalid('its ends are missing');
  const axes = node.axes(list(3, 'axes') ?? range(begins.length), shape.length);
  const strides = (asInputs ? list(4, 'steps') : undefined) ?? axes.map(() => 1);
  if ([begins, ends, strides].some((values) => values.length !== axes.length) || strides.includes(0)) {
    node.invalid(
      `its starts [${begins}], ends [${ends}] and steps [${strides}] don't fit its axes [${axes}]`,
    );
  }
  const [starts, steps, extents] = [shape.map(() => 0), shape.map(() => 1), [...shape]];
  for (const [i, axis] of axes.entries()) {
    const resolved = sliceAxis(shape[axis]!, begins[i]!, ends[i]!, strides[i]!);
    [starts[axis], steps[axis], extents[axis]] = resolved;
  }
  if (sameShape(extents, shape) && steps.every((step) => step === 1)) return x;
  return node.step('slice', [x], { dtype, shape: extents }, { starts, steps });
}

/** Start, step and count of begin:end:step over `length` elements. */
function sliceAxis(length: number, begin: number, end: number, step: number): [number, number, number] {
  const [min, max] = step > 0 ? [0, length] : [-1, length - 1];
  const clamp = (bound: number, least: number) =>
    Math.min(Math.max(bound < 0 ? bound + length : bound, least), max);
  const start = clamp(begin, 0);
  const count = Math.max(Math.ceil((clamp(end, min) - start) / step), 0);
  // With at most one element the step has no effect; it may be too large for an integer.
  return count > 1 ? [start, step, count] : [count === 0 ? 0 : start, 1, count];
}

/** Split as one slice per output. */
function split(node: NodeLowering): readonly ValueId[] {
  const x = node.input(0);
  const shape = node.shape(x);
  const axis = node.axis(node.number('axis', 0), shape.length);
  const whole = shape[axis]!;
  const parts = node.number('num_outputs', node.node.outputs.length);
  if (parts !== node.node.outputs.length)
    node.invalid(`its num_outputs ${parts} differs from its number of outputs`);
  const share = Math.ceil(whole / parts);
  const given = node.opset < 13 ? node.numbers('split') : node.optionalIntegers(1, 'split');
  const lengths = given ?? range(parts).map((i) => Math.min(share, whole - i * share));
  if (lengths.some((length) => length < 0) || lengths.reduce((sum, length) => sum + length, 0) !== whole) {
    node.invalid(`axis ${axis} of its input [${shape}] can't be split into [${lengths}]`);
  }
  let start = 0;
  return lengths.map((length) => {
    start += length;
    return part(node, x, axis, start - length, start);
  });
}

function oneHot(node: NodeLowering): ValueId {
  const given = node.input(0);
  const { dtype, shape } = node.value(given);
  const indices = dtype === 'uint8' || dtype === 'bool' ? node.cast(given, 'int64') : given;
  const depth = Math.trunc(node.optionalScalar(1, 'depth') ?? node.invalid('its depth is missing'));
  if (!(depth >= 0)) node.invalid(`its depth is ${depth}`);
  const values = node.input(2);
  if (!sameShape(node.shape(values), [2])) {
    node.invalid(`its values have shape [${node.shape(values)}]; expected [2]`);
  }
  const axis = node.axis(node.number('axis', -1), shape.length + 1);
  const output = { dtype: node.value(values).dtype, shape: shape.toSpliced(axis, 0, depth) };
  return node.step('oneHot', [indices, values], output, { axis, depth });
}

export const INDEXING: OperatorTable = {
  Gather: { lower: gather },
  Slice: { lower: slice, constantInputs: [1, 2, 3, 4] },
  Split: { lower: split, constantInputs: [1] },
  OneHot: { lower: oneHot, constantInputs: [1] },
};
