import { range } from '../../../numeric/shapes.js';
import { NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/** How one axis is resized. */
interface Axis {
  readonly axis: number;
  readonly from: number;
  readonly to: number;
  /** Of the output's length, before it was rounded. */
  readonly scale: number;
  /** Begin and end of the region of interest, in units of the length. */
  readonly region: readonly [number, number];
}

/** For each position of the output: `reach` positions in the input that make it, and their weights. */
interface Taps {
  readonly reach: number;
  readonly indices: Int32Array;
  readonly weights: Float32Array;
}

interface Interpolation {
  readonly mode: 'nearest' | 'linear' | 'cubic';
  readonly coordinates: string;
  readonly nearest: string;
  readonly cubicA: number;
  readonly excludeOutside: boolean;
  readonly antialias: boolean;
}

const f = Math.fround;

/**
 * Where position i of the output lies in the input. The scale is a float32, so these are operations on float32: with 0.6, position 3
 * lies at 5 and not just below it, which `nearest` would round to another element.
 */
function coordinate(node: NodeLowering, mode: string, i: number, axis: Axis): number {
  const { from, to, region } = axis;
  const scale = f(axis.scale);
  const scaled = f((i + 0.5) / scale);
  switch (mode) {
    case 'half_pixel':
      return f(scaled - 0.5);
    case 'pytorch_half_pixel':
      return to > 1 ? f(scaled - 0.5) : 0;
    case 'tf_half_pixel_for_nn':
      return scaled;
    case 'align_corners':
      return to > 1 ? f((i * (from - 1)) / (to - 1)) : 0;
    case 'asymmetric':
      return f(i / scale);
    case 'half_pixel_symmetric':
      return f((from / 2) * (1 - to / (scale * from)) + (i + 0.5) / scale - 0.5);
    case 'tf_crop_and_resize': {
      const [begin, end] = region;
      if (to === 1) return f(0.5 * (begin + end) * (from - 1));
      return f(begin * (from - 1) + (i * (end - begin) * (from - 1)) / (to - 1));
    }
    default:
      return node.invalid(`its coordinate_transformation_mode '${mode}' is unknown`);
  }
}

const NEAREST: Readonly<Record<string, (x: number) => number>> = {
  round_prefer_floor: (x) => Math.ceil(x - 0.5),
  round_prefer_ceil: (x) => Math.floor(x + 0.5),
  floor: Math.floor,
  ceil: Math.ceil,
};

/** Weight of an element at a distance: a triangle, or the cubic convolution of Keys (1981). */
function kernel(mode: 'linear' | 'cubic', distance: number, a: number): number {
  const t = Math.abs(distance);
  if (mode === 'linear') return Math.max(1 - t, 0);
  if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? ((t - 5) * t + 8) * t * a - 4 * a : 0;
}

/** Elementary operations for each weight. */
const TAP_WORK = 4;

function tapsOf(node: NodeLowering, axis: Axis, interpolation: Interpolation): Taps {
  const { mode, cubicA, excludeOutside, antialias } = interpolation;
  const last = axis.from - 1;
  const clamp = (at: number) => Math.min(Math.max(at, 0), last);
  const isNearest = mode === 'nearest';
  // Shrinking with antialias widens the kernel, so that every element counts.
  const shrink = antialias ? Math.min(axis.scale, 1) : 1;
  const half = Math.ceil((mode === 'linear' ? 1 : 2) / shrink);
  const reach = isNearest ? 1 : 2 * half;
  node.afford('int32', axis.to * reach, TAP_WORK);
  node.afford('float32', axis.to * reach, TAP_WORK);
  const indices = new Int32Array(axis.to * reach);
  const weights = new Float32Array(axis.to * reach).fill(1);
  const round = NEAREST[interpolation.nearest];
  if (isNearest && !round) node.invalid(`its nearest_mode '${interpolation.nearest}' is unknown`);
  const raw = new Float64Array(reach);
  for (let i = 0; i < axis.to; i++) {
    const x = coordinate(node, interpolation.coordinates, i, axis);
    if (isNearest) {
      indices[i] = clamp(round!(x));
      continue;
    }
    const first = Math.floor(x) - half + 1;
    let total = 0;
    for (let k = 0; k < reach; k++) {
      const at = first + k;
      raw[k] = excludeOutside && at !== clamp(at) ? 0 : kernel(mode, (at - x) * shrink, cubicA);
      total += raw[k]!;
      indices[i * reach + k] = clamp(at);
    }
    if (!excludeOutside && !antialias) total = 1;
    for (let k = 0; k < reach; k++) weights[i * reach + k] = raw[k]! / total;
  }
  return { reach, indices, weights };
}

/** Whether every element of the output is the one of the input at the same place. */
function isIdentity({ reach, indices, weights }: Taps): boolean {
  return indices.every((at, i) => weights[i] === 0 || at === Math.floor(i / reach));
}

/** Repeats every element `times` times along `axis`. */
function repeated(node: NodeLowering, x: ValueId, axis: number, times: number): ValueId {
  const shape = node.shape(x);
  const apart = [...shape.slice(0, axis + 1), 1, ...shape.slice(axis + 1)];
  const wide = node.expand(node.reshape(x, apart), apart.with(axis + 1, times));
  return node.reshape(wide, shape.with(axis, shape[axis]! * times));
}

function resizeAxis(node: NodeLowering, x: ValueId, axis: Axis, interpolation: Interpolation): ValueId {
  const taps = tapsOf(node, axis, interpolation);
  if (axis.from === axis.to && isIdentity(taps)) return x;
  const { reach, indices, weights } = taps;
  const { dtype, shape } = node.value(x);
  const output = { dtype, shape: shape.with(axis.axis, axis.to) };
  if (interpolation.mode === 'nearest') {
    const times = axis.to / axis.from;
    if (Number.isInteger(times) && indices.every((at, i) => at === Math.floor(i / times))) {
      return repeated(node, x, axis.axis, times);
    }
    const flat = node.constantOf('int32', [axis.to], indices);
    return node.step('gather', [x, flat], output, { axis: axis.axis });
  }
  const places = node.constantOf('int32', [axis.to, reach], indices);
  const factors = node.constantOf('float32', [axis.to, reach], weights);
  return node.step('resample', [x, places, factors], output, { axis: axis.axis });
}

/** Elements that the region of interest takes from outside the input get one value. */
function extrapolated(node: NodeLowering, x: ValueId, axes: readonly Axis[], value: number): ValueId {
  const { dtype, shape } = node.value(x);
  let result = x;
  for (const axis of axes) {
    node.afford('bool', axis.to, TAP_WORK);
    const outside = Uint8Array.from({ length: axis.to }, (_, i) => {
      const at = coordinate(node, 'tf_crop_and_resize', i, axis);
      return Number(at < 0 || at > axis.from - 1);
    });
    if (!outside.includes(1)) continue;
    const along = shape.map((_, d) => (d === axis.axis ? axis.to : 1)).slice(axis.axis);
    const mask = node.constantOf('bool', along, outside);
    result = node.step('where', [mask, node.cast(node.scalar(value), dtype), result], { dtype, shape }, {});
  }
  return result;
}

/** The axes with their lengths; what is not given keeps its length. */
function resizedAxes(node: NodeLowering, shape: readonly number[]): Axis[] {
  const rank = shape.length;
  const isNew = node.opset >= 11;
  const axes = node.axes(node.numbers('axes') ?? range(rank), rank);
  const floats = (index: number, what: string): number[] | undefined => {
    const id = node.optional(index);
    const list = id === NONE ? [] : Array.from(node.constant(id, what).data, Number);
    return list.length > 0 ? list : undefined;
  };
  const regions = isNew ? floats(1, 'roi') : undefined;
  const attribute = node.node.attributes.get('scales') as readonly number[] | undefined;
  const scales = node.opset < 9 ? attribute : floats(isNew ? 2 : 1, 'scales');
  const sizes = isNew ? floats(3, 'sizes') : undefined;
  const given = sizes ?? scales ?? node.invalid('it has neither scales nor sizes');
  const crops = node.string('coordinate_transformation_mode', '') === 'tf_crop_and_resize';
  const fits = given.length === axes.length && (!crops || regions?.length === 2 * axes.length);
  if (!fits || !given.every((number) => number > 0)) {
    node.invalid(`its scales, sizes [${given}] or roi don't fit the axes [${axes}] of its input [${shape}]`);
  }
  const policy = sizes ? node.string('keep_aspect_ratio_policy', 'stretch') : 'stretch';
  const ratios = given.map((number, i) => (sizes ? number / shape[axes[i]!]! : number));
  const common = policy === 'not_larger' ? Math.min(...ratios) : Math.max(...ratios);
  return axes.map((axis, i) => {
    const from = shape[axis]!;
    const scale = policy === 'stretch' ? ratios[i]! : common;
    const to =
      sizes && policy === 'stretch'
        ? given[i]!
        : sizes
          ? Math.floor(scale * from + 0.5)
          : Math.floor(f(from * scale));
    return { axis, from, to, scale, region: [regions?.[i] ?? 0, regions?.[i + axes.length] ?? 1] };
  });
}

/** One axis after another, each as weighted sums along it. */
function resize(node: NodeLowering): ValueId {
  const x = node.input(0);
  const { dtype, shape } = node.value(x);
  const axes = resizedAxes(node, shape);
  const mode = node.string('mode', 'nearest');
  if (mode !== 'nearest' && mode !== 'linear' && mode !== 'cubic')
    node.invalid(`its mode '${mode}' is unknown`);
  if (axes.some(({ from, to }) => (from === 0) !== (to === 0))) node.invalid(`its input [${shape}] is empty`);
  if (shape.includes(0)) {
    return node.reshape(
      x,
      axes.reduce((lengths: readonly number[], { axis, to }) => lengths.with(axis, to), shape),
    );
  }
  const isNew = node.opset >= 11;
  const coordinates = node.string('coordinate_transformation_mode', isNew ? 'half_pixel' : 'asymmetric');
  const interpolation: Interpolation = {
    mode,
    coordinates,
    nearest: node.string('nearest_mode', isNew ? 'round_prefer_floor' : 'floor'),
    cubicA: node.number('cubic_coeff_a', -0.75),
    excludeOutside: node.number('exclude_outside', 0) !== 0,
    antialias: node.number('antialias', 0) !== 0,
  };
  const start = mode === 'nearest' ? x : node.cast(x, 'float32');
  const resized = axes.reduce((value, axis) => resizeAxis(node, value, axis, interpolation), start);
  const filled =
    coordinates === 'tf_crop_and_resize'
      ? extrapolated(node, resized, axes, node.number('extrapolation_value', 0))
      : resized;
  return node.cast(filled, dtype);
}

export const RESIZE: OperatorTable = {
  Resize: { lower: resize, constantInputs: [1, 2, 3] },
  Upsample: { lower: resize, constantInputs: [1] },
};
