import { range } from '../../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';

/** The sliding window of a convolution or pool, with `auto_pad` resolved. */
export interface ResolvedWindow {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
  /** Lengths of the output's spatial axes. */
  readonly extents: readonly number[];
}

/** No real window is this wide; larger numbers are mistakes. */
const MAX_WINDOW = 2 ** 20;

/** Begin and end padding of one axis. */
type Padding = readonly [number, number];

/**
 * Resolves the window attributes of a node.
 * @param spatial lengths of the input's spatial axes
 * @param ceil round the output's lengths up (`ceil_mode`)
 */
export function resolveWindow(
  node: NodeLowering,
  spatial: readonly number[],
  kernel: readonly number[],
  ceil = false,
): ResolvedWindow {
  const axes = range(spatial.length);
  if (axes.length < 1 || axes.length > 3) {
    node.unsupported(`its input has ${axes.length} spatial axes; 1 to 3 are supported`);
  }
  if (kernel.length !== axes.length || !kernel.every((length) => length > 0 && length <= MAX_WINDOW)) {
    node.invalid(`its kernel [${kernel}] doesn't fit ${axes.length} spatial axes`);
  }
  const strides = perAxis(node, 'strides', axes.length, 1);
  const dilations = perAxis(node, 'dilations', axes.length, 1);
  const given = perAxis(node, 'pads', 2 * axes.length, 0);
  const mode = node.string('auto_pad', 'NOTSET');
  const reach = axes.map((axis) => (kernel[axis]! - 1) * dilations[axis]! + 1);
  const padding = axes.map((axis): Padding => {
    switch (mode) {
      case 'NOTSET':
      case '':
        return [given[axis]!, given[axis + axes.length]!];
      case 'VALID':
        return [0, 0];
      case 'SAME_UPPER':
      case 'SAME_LOWER':
        return samePadding(spatial[axis]!, reach[axis]!, strides[axis]!, mode === 'SAME_LOWER');
      default:
        return node.invalid(`its auto_pad '${mode}' is unknown`);
    }
  });
  const extents = axes.map((axis) =>
    extent(node, spatial[axis]!, reach[axis]!, strides[axis]!, padding[axis]!, ceil),
  );
  const pads = [...padding.map(([begin]) => begin), ...padding.map(([, end]) => end)];
  return { kernel, strides, pads, dilations, extents };
}

/** The pads of a window over `spatial`, with the end pads widened to everything that windows reach. */
export function widenedPads(
  { kernel, strides, pads, dilations, extents }: ResolvedWindow,
  spatial: readonly number[],
): number[] {
  const begins = pads.slice(0, spatial.length);
  const ends = spatial.map((length, axis) => {
    const reached = (extents[axis]! - 1) * strides[axis]! + (kernel[axis]! - 1) * dilations[axis]! + 1;
    return Math.max(pads[axis + spatial.length]!, reached - length - begins[axis]!);
  });
  return [...begins, ...ends];
}

function perAxis(node: NodeLowering, name: string, count: number, min: number): readonly number[] {
  const values = node.numbers(name) ?? new Array<number>(count).fill(min);
  const fits = values.length === count && values.every((value) => value >= min && value <= MAX_WINDOW);
  return fits
    ? values
    : node.invalid(`its ${name} [${values}] are not ${count} integers from ${min} to ${MAX_WINDOW}`);
}

/**
 * Padding that gives ceil(length / stride) windows; an odd element is added at the end, or at the beginning if
 * `lower`.
 */
function samePadding(length: number, reach: number, stride: number, lower: boolean): Padding {
  const total = Math.max((Math.ceil(length / stride) - 1) * stride + reach - length, 0);
  const small = Math.floor(total / 2);
  return lower ? [total - small, small] : [small, total - small];
}

function extent(
  node: NodeLowering,
  length: number,
  reach: number,
  stride: number,
  [begin, end]: Padding,
  ceil: boolean,
): number {
  const room = length + begin + end - reach;
  if (room < 0)
    node.invalid(`a window of ${reach} doesn't fit into ${length} elements padded by ${begin + end}`);
  const floor = Math.floor(room / stride) + 1;
  if (!ceil) return floor;
  const count = Math.ceil(room / stride) + 1;
  // A window that would start in the end padding is left out.
  return (count - 1) * stride >= length + begin ? count - 1 : count;
}
