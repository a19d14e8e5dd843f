import { broadcast, range, sizeOf } from '../../../numeric/shapes.js';
import { NONE, PAD_MODES, type PadMode, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

function flatten(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const given = node.number('axis', 1);
  const axis = given === shape.length ? given : node.axis(given, shape.length);
  return node.reshape(x, [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))]);
}

/** 0 keeps a length (unless `allowzero`); one -1 is inferred. */
function reshape(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const target = node.integers(node.input(1), 'shape');
  const keepsZero = node.number('allowzero', 0) !== 0;
  const lengths = target.map((length, axis) => (length === 0 && !keepsZero ? (shape[axis] ?? -2) : length));
  const open = lengths.indexOf(-1);
  if (open >= 0) {
    const known = sizeOf(lengths.filter((_, axis) => axis !== open));
    lengths[open] = known === 0 ? 0 : sizeOf(shape) / known;
  }
  if (
    !lengths.every((length) => Number.isInteger(length) && length >= 0) ||
    sizeOf(lengths) !== sizeOf(shape)
  ) {
    node.invalid(`its input [${shape}] can't be reshaped to [${target}]`);
  }
  return node.reshape(x, lengths);
}

/** Axes of Squeeze and Unsqueeze: an attribute up to opset 12, an input since then. */
function axesOf(node: NodeLowering): readonly number[] | undefined {
  return node.opset < 13 ? node.numbers('axes') : node.optionalIntegers(1, 'axes');
}

function squeeze(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const given = axesOf(node);
  const axes = given
    ? node.axes(given, shape.length)
    : range(shape.length).filter((axis) => shape[axis] === 1);
  if (axes.some((axis) => shape[axis] !== 1)) {
    node.invalid(`axes [${axes}] of its input [${shape}] are not all of length 1`);
  }
  return node.reshape(
    x,
    shape.filter((_, axis) => !axes.includes(axis)),
  );
}

function unsqueeze(node: NodeLowering): ValueId {
  const x = node.input(0);
  const given = axesOf(node) ?? node.invalid('its axes are missing');
  const rank = node.rank(x) + given.length;
  const axes = node.axes(given, rank);
  const lengths = node.shape(x).values();
  return node.reshape(
    x,
    range(rank).map((axis) => (axes.includes(axis) ? 1 : lengths.next().value!)),
  );
}

function transpose(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const perm = node.numbers('perm') ?? range(shape.length).reverse();
  if (perm.length !== shape.length || !range(shape.length).every((axis) => perm.includes(axis))) {
    node.invalid(`its perm [${perm}] is not a permutation of ${shape.length} axes`);
  }
  return transposed(node, x, perm);
}

/** Axis i of the result is axis perm[i] of x. */
export function transposed(node: NodeLowering, x: ValueId, perm: readonly number[]): ValueId {
  if (perm.every((from, to) => from === to)) return x;
  const { dtype, shape } = node.value(x);
  return node.step('transpose', [x], { dtype, shape: perm.map((axis) => shape[axis]!) }, { perm });
}

/** Elements begin to end - 1 of x along `axis`. */
export function part(node: NodeLowering, x: ValueId, axis: number, begin: number, end: number): ValueId {
  const { dtype, shape } = node.value(x);
  if (begin === 0 && end === shape[axis]) return x;
  const attrs = { starts: shape.map((_, d) => (d === axis ? begin : 0)), steps: shape.map(() => 1) };
  return node.step('slice', [x], { dtype, shape: shape.with(axis, end - begin) }, attrs);
}

/** @param axis non-negative */
export function concatenate(node: NodeLowering, ids: readonly ValueId[], axis: number): ValueId {
  const { dtype, shape } = node.value(ids[0]!);
  let length = 0;
  for (const id of ids) {
    const other = node.value(id);
    const fits =
      other.shape.length === shape.length && shape.every((size, i) => i === axis || size === other.shape[i]);
    if (!fits || other.dtype !== dtype) {
      node.invalid(
        `${dtype}[${shape}] and ${other.dtype}[${other.shape}] can't be concatenated along axis ${axis}`,
      );
    }
    length += other.shape[axis]!;
  }
  if (ids.length === 1) return ids[0]!;
  return node.step('concat', ids, { dtype, shape: shape.with(axis, length) }, { axis });
}

function expand(node: NodeLowering): ValueId {
  const x = node.input(0);
  const target = node.integers(node.input(1), 'shape');
  const shape = target.every((length) => length >= 0) ? broadcast(node.shape(x), target) : undefined;
  return node.expand(
    x,
    shape ?? node.invalid(`its input [${node.shape(x)}] can't be expanded to [${target}]`),
  );
}

/** Pads and value are attributes up to opset 10, inputs since then; opset 18 adds axes. */
function pad(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype, shape } = node.value(x);
  const rank = shape.length;
  const asInputs = node.opset >= 11;
  const given = asInputs ? node.integers(node.input(1), 'pads') : (node.numbers('pads') ?? []);
  const axes = node.axes((asInputs ? node.optionalIntegers(3, 'axes') : undefined) ?? range(rank), rank);
  const mode = PAD_MODES.find((known) => known === node.string('mode', 'constant'));
  if (!mode) node.invalid(`its mode '${node.string('mode', '')}' is unknown`);
  if (given.length !== 2 * axes.length || !given.every(Number.isSafeInteger)) {
    node.invalid(`its pads [${given}] are not ${2 * axes.length} integers`);
  }
  const pads = new Array<number>(2 * rank).fill(0);
  for (const [i, axis] of axes.entries()) {
    pads[axis] = given[i]!;
    pads[axis + rank] = given[i + axes.length]!;
  }
  if (pads.every((length) => length === 0)) return x;
  const padded = shape.map((length, axis) => {
    const [begin, end] = [pads[axis]!, pads[axis + rank]!];
    checkPads(node, mode, length, begin, end);
    return length + begin + end;
  });
  const value = mode === 'constant' ? padValue(node, asInputs) : NONE;
  const inputs = [x, value === NONE ? NONE : node.cast(value, dtype)];
  return node.step('pad', inputs, { dtype, shape: padded }, { pads, mode });
}

/** What a pad fills with, as a scalar; NONE for 0. */
function padValue(node: NodeLowering, asInput: boolean): ValueId {
  const value = asInput ? node.optionalScalar(2, 'constant_value') : node.number('value', 0);
  if (value === undefined || value === 0) return NONE;
  return asInput ? node.reshape(node.input(2), []) : node.scalar(value);
}

/** Negative pads crop first; all other elements then repeat what is left, or are the constant. */
function checkPads(node: NodeLowering, mode: PadMode, length: number, begin: number, end: number): void {
  const left = length + Math.min(begin, 0) + Math.min(end, 0);
  const max = { constant: 2 ** 31, edge: left > 0 ? 2 ** 31 : 0, reflect: left - 1, wrap: left }[mode];
  if (left < 0 || Math.max(begin, end, 0) > Math.max(max, 0)) {
    node.invalid(`an axis of ${length} elements can't be padded by ${begin} and ${end} in mode '${mode}'`);
  }
}

/** The upper or lower triangle of each matrix; 0 elsewhere. */
function trilu(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype, shape } = node.value(x);
  if (shape.length < 2) node.invalid(`its input [${shape}] has no matrices`);
  const [rows, columns] = shape.slice(-2) as [number, number];
  const diagonal = node.optionalScalar(1, 'k') ?? 0;
  const upper = node.number('upper', 1) !== 0;
  node.afford('bool', rows * columns);
  const keeps = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const kept = keeps.subarray(row * columns, (row + 1) * columns);
    const edge = Math.min(columns, Math.max(0, row + diagonal + (upper ? 0 : 1)));
    kept.fill(1, upper ? edge : 0, upper ? columns : edge);
  }
  const mask = node.constantOf('bool', [rows, columns], keeps);
  return node.step('where', [mask, x, node.cast(node.scalar(0), dtype)], { dtype, shape }, {});
}

/** Repeats x along its axes, by an expansion of axes in front of those that repeat. */
function tile(node: NodeLowering): ValueId {
  const x = node.input(0);
  const shape = node.shape(x);
  const repeats = node.integers(node.input(1), 'repeats');
  if (repeats.length !== shape.length || repeats.some((times) => times < 0)) {
    node.invalid(`its repeats [${repeats}] don't fit its input [${shape}]`);
  }
  const apart = (count: (times: number) => number) =>
    shape.flatMap((length, axis) => (repeats[axis] === 1 ? [length] : [count(repeats[axis]!), length]));
  const wide = node.expand(
    node.reshape(
      x,
      apart(() => 1),
    ),
    apart((times) => times),
  );
  return node.reshape(
    wide,
    shape.map((length, axis) => length * repeats[axis]!),
  );
}

/** Blocks of `size` x `size` channels become pixels, or pixels channels. */
function images(node: NodeLowering): { x: ValueId; shape: [number, number, number, number]; size: number } {
  const x = node.input(0);
  const shape = node.shape(x);
  const size = node.number('blocksize', 0);
  if (shape.length !== 4 || !Number.isInteger(size) || size < 1) {
    node.invalid(`its input [${shape}] and blocksize ${size} don't fit; expected four axes and an integer`);
  }
  return { x, shape: shape as unknown as [number, number, number, number], size };
}

function depthToSpace(node: NodeLowering): ValueId {
  const { x, shape, size } = images(node);
  const [batch, channels, height, width] = shape;
  const depth = channels / size ** 2;
  if (!Number.isInteger(depth)) node.invalid(`its ${channels} channels are not a multiple of ${size ** 2}`);
  const mode = node.string('mode', 'DCR');
  if (mode !== 'DCR' && mode !== 'CRD') node.invalid(`its mode '${mode}' is unknown`);
  const [apart, perm] =
    mode === 'DCR'
      ? [
          [batch, size, size, depth, height, width],
          [0, 3, 4, 1, 5, 2],
        ]
      : [
          [batch, depth, size, size, height, width],
          [0, 1, 4, 2, 5, 3],
        ];
  const moved = transposed(node, node.reshape(x, apart), perm);
  return node.reshape(moved, [batch, depth, height * size, width * size]);
}

function spaceToDepth(node: NodeLowering): ValueId {
  const { x, shape, size } = images(node);
  const [batch, channels, height, width] = shape;
  if (height % size !== 0 || width % size !== 0) {
    node.invalid(`its input [${shape}] can't be cut into squares of ${size}`);
  }
  const apart = [batch, channels, height / size, size, width / size, size];
  const moved = transposed(node, node.reshape(x, apart), [0, 3, 5, 1, 2, 4]);
  return node.reshape(moved, [batch, channels * size ** 2, height / size, width / size]);
}

export const LAYOUT: OperatorTable = {
  Identity: { lower: (node) => node.input(0) },
  Flatten: { lower: flatten },
  Reshape: { lower: reshape, constantInputs: [1] },
  Squeeze: { lower: squeeze, constantInputs: [1] },
  Unsqueeze: { lower: unsqueeze, constantInputs: [1] },
  Transpose: { lower: transpose },
  Concat: {
    lower: (node) => {
      const ids = node.inputs();
      return concatenate(node, ids, node.axis(node.number('axis', 0), node.rank(ids[0]!)));
    },
  },
  Expand: { lower: expand, constantInputs: [1] },
  Pad: { lower: pad, constantInputs: [1, 2, 3] },
  Trilu: { lower: trilu, constantInputs: [1] },
  Tile: { lower: tile, constantInputs: [1] },
  DepthToSpace: { lower: depthToSpace },
  SpaceToDepth: { lower: spaceToDepth },
};
