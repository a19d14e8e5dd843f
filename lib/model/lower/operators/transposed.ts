import { range, sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { arithmetic } from './elementwise.js';
import { part, transposed } from './layout.js';
import type { OperatorTable } from './operator.js';

/**
 * ConvTranspose as a convolution at the input's resolution. Along an axis with stride s, output s*q + p - pad depends on the
 * elements p, p + s, p + 2s, ... of the kernel: the phases p are channels of one convolution, and are then interleaved. No
 * multiplication with a zero is added but those that fill the kernel up to a multiple of the stride.
 */
function convTranspose(node: NodeLowering): ValueId {
  const [x, weight] = [node.float(0), node.float(1)];
  const [batch = 0, channels = 0, ...spatial] = node.shape(x);
  const [depth = 0, perGroup = 0, ...kernel] = node.shape(weight);
  const rank = spatial.length;
  const group = node.number('group', 1);
  if (rank < 1 || kernel.length !== rank || depth !== channels || group < 1 || channels % group !== 0) {
    node.invalid(
      `its weight [${node.shape(weight)}] in ${group} groups doesn't fit its input [${node.shape(x)}]`,
    );
  }
  if (rank > 3) node.unsupported(`its input has ${rank} spatial axes; 1 to 3 are supported`);
  const strides = positive(node, 'strides', rank);
  const dilations = positive(node, 'dilations', rank);
  const { begins, lengths } = extents(node, spatial, kernel, strides, dilations);
  const spread = range(rank).reduce((w, d) => dilated(node, w, d + 2, dilations[d]!), weight);
  const taps = strides.map((stride, d) => Math.ceil(((kernel[d]! - 1) * dilations[d]! + 1) / stride));
  const phases = sizeOf(strides);
  const filters = phaseFilters(node, spread, group, strides, taps);
  // Padded by all taps but one on either side, every product of input and kernel occurs.
  const wide = spatial.map((length, d) => length + taps[d]! - 1);
  const pads = taps.map((count) => count - 1);
  const attrs = {
    strides: strides.map(() => 1),
    dilations: strides.map(() => 1),
    pads: [...pads, ...pads],
    group,
    act: NO_ACTIVATION,
  };
  const filterCount = group * perGroup;
  const output = { dtype: 'float32', shape: [batch, filterCount * phases, ...wide] } as const;
  const y = node.step('conv', [x, filters, NONE, NONE], output, attrs);
  const all = interleaved(node, node.reshape(y, [batch, filterCount, ...strides, ...wide]), rank);
  const fitted = range(rank).reduce((value, d) => window(node, value, d + 2, begins[d]!, lengths[d]!), all);
  if (node.optional(2) === NONE) return fitted;
  const bias = node.reshape(node.float(2), [filterCount, ...strides.map(() => 1)]);
  return arithmetic(node, 'add', fitted, bias);
}

function positive(node: NodeLowering, name: string, count: number): readonly number[] {
  const values = node.numbers(name) ?? new Array<number>(count).fill(1);
  if (values.length === count && values.every((value) => value >= 1 && value < 2 ** 20)) return values;
  return node.invalid(`its ${name} [${values}] are not ${count} positive integers`);
}

/** Where the output begins in the full result of each axis, and how long it is. */
function extents(
  node: NodeLowering,
  spatial: readonly number[],
  kernel: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): { begins: number[]; lengths: number[] } {
  const rank = spatial.length;
  const declared = node.numbers('kernel_shape') ?? kernel;
  if (declared.join() !== kernel.join())
    node.invalid(`its weight doesn't fit its kernel_shape [${declared}]`);
  const extra = node.numbers('output_padding') ?? strides.map(() => 0);
  const full = spatial.map(
    (length, d) => strides[d]! * (length - 1) + (kernel[d]! - 1) * dilations[d]! + 1 + (extra[d] ?? 0),
  );
  const given = node.numbers('output_shape')?.slice(-rank);
  const mode = node.string('auto_pad', 'NOTSET');
  const same = mode === 'SAME_UPPER' || mode === 'SAME_LOWER';
  const asked =
    given && given.length === rank
      ? given
      : same
        ? spatial.map((length, d) => length * strides[d]!)
        : undefined;
  const pads = node.numbers('pads') ?? new Array<number>(2 * rank).fill(0);
  if (pads.length !== 2 * rank || extra.length !== rank)
    node.invalid(`its pads [${pads}] don't fit ${rank} axes`);
  const begins = full.map((length, d) => {
    if (!asked) return mode === 'VALID' ? 0 : pads[d]!;
    const total = Math.max(length - asked[d]!, 0);
    return mode === 'SAME_UPPER' ? Math.floor(total / 2) : total - Math.floor(total / 2);
  });
  const lengths = full.map((length, d) => {
    if (asked) return asked[d]!;
    return mode === 'VALID' ? length : length - pads[d]! - pads[d + rank]!;
  });
  if (lengths.some((length) => length < 1)) node.invalid(`its output would be empty [${lengths}]`);
  return { begins, lengths };
}

/** Zeros between the elements of an axis, and behind the last. */
function dilated(node: NodeLowering, x: ValueId, axis: number, dilation: number): ValueId {
  if (dilation === 1) return x;
  const shape = node.shape(x);
  const apart = node.reshape(x, shape.toSpliced(axis + 1, 0, 1));
  const wide = padded(node, apart, axis + 1, dilation);
  return node.reshape(wide, shape.with(axis, shape[axis]! * dilation));
}

/** Zeros at the end of an axis, up to `length`; or only its first elements. */
function padded(node: NodeLowering, x: ValueId, axis: number, length: number): ValueId {
  return window(node, x, axis, 0, length);
}

/** `length` elements of an axis from `begin` on, with zeros where there are none. */
function window(node: NodeLowering, x: ValueId, axis: number, begin: number, length: number): ValueId {
  const { dtype, shape } = node.value(x);
  const end = begin + length - shape[axis]!;
  if (begin >= 0 && end <= 0) return part(node, x, axis, begin, begin + length);
  const pads = [...shape.map(() => 0), ...shape.map(() => 0)];
  pads[axis] = -begin;
  pads[axis + shape.length] = end;
  const output = { dtype, shape: shape.with(axis, length) };
  return node.step('pad', [x, NONE], output, { pads, mode: 'constant' });
}

/**
 * Filters (group * filters * phases, channels / group, taps...) of the convolution, from a weight
 * (channels, filters / group, kernel...); taps run backwards.
 */
function phaseFilters(
  node: NodeLowering,
  weight: ValueId,
  group: number,
  strides: readonly number[],
  taps: readonly number[],
): ValueId {
  const rank = strides.length;
  const [channels, perGroup] = node.shape(weight) as [number, number];
  const filled = range(rank).reduce((w, d) => padded(node, w, d + 2, taps[d]! * strides[d]!), weight);
  const apart = node.reshape(filled, [
    group,
    channels / group,
    perGroup,
    ...range(rank).flatMap((d) => [taps[d]!, strides[d]!]),
  ]);
  const tapAxes = range(rank).map((d) => 3 + 2 * d);
  const { dtype, shape } = node.value(apart);
  const starts = shape.map((length, axis) => (tapAxes.includes(axis) ? length - 1 : 0));
  const steps = shape.map((_, axis) => (tapAxes.includes(axis) ? -1 : 1));
  const reversed = node.step('slice', [apart], { dtype, shape }, { starts, steps });
  const moved = transposed(node, reversed, [0, 2, ...tapAxes.map((axis) => axis + 1), 1, ...tapAxes]);
  return node.reshape(moved, [group * perGroup * sizeOf(strides), channels / group, ...taps]);
}

/** (batch, filters, phases..., positions...) to (batch, filters, positions * phases...). */
function interleaved(node: NodeLowering, x: ValueId, rank: number): ValueId {
  const shape = node.shape(x);
  const pairs = range(rank).flatMap((d) => [2 + rank + d, 2 + d]);
  const moved = transposed(node, x, [0, 1, ...pairs]);
  return node.reshape(moved, [
    ...shape.slice(0, 2),
    ...range(rank).map((d) => shape[2 + d]! * shape[2 + rank + d]!),
  ]);
}

export const TRANSPOSED: OperatorTable = { ConvTranspose: { lower: convTranspose } };
