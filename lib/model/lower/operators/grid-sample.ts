import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { absolute, unary } from './activations.js';
import { arithmetic } from './elementwise.js';
import { part } from './layout.js';
import type { OperatorTable } from './operator.js';

/** Operators name the modes by adjectives up to opset 19, and by nouns since then. */
const MODES: Readonly<Record<string, 'linear' | 'nearest' | 'cubic'>> = {
  bilinear: 'linear',
  linear: 'linear',
  nearest: 'nearest',
  bicubic: 'cubic',
  cubic: 'cubic',
};

const PADDINGS = ['zeros', 'border', 'reflection'] as const;

/** Where samples read along one axis: whole positions inside the image, and weights. */
interface Tap {
  readonly at: ValueId;
  readonly weight: ValueId | undefined;
}

interface Sampling {
  readonly node: NodeLowering;
  /** Positions as the operator takes them, from -1 to 1. */
  readonly grid: ValueId;
  readonly mode: 'linear' | 'nearest' | 'cubic';
  readonly padding: (typeof PADDINGS)[number];
  /** Whether -1 and 1 are the middles of the outermost pixels, not their edges. */
  readonly corners: boolean;
  readonly batch: number;
  readonly points: number;
}

const sum = (node: NodeLowering, a: ValueId, b: ValueId) => arithmetic(node, 'add', a, b);
const plus = (node: NodeLowering, a: ValueId, b: number) => sum(node, a, node.scalar(b));
const times = (node: NodeLowering, a: ValueId, b: ValueId) => arithmetic(node, 'mul', a, b);
const scaled = (node: NodeLowering, a: ValueId, b: number) => times(node, a, node.scalar(b));
const inside = (node: NodeLowering, a: ValueId, length: number) => unary(node, a, 'clip', 0, length - 1);

/** Back and forth between the edges of the image. */
function reflected({ node, corners }: Sampling, a: ValueId, length: number): ValueId {
  const [first, extent] = corners ? [0, length - 1] : [-0.5, length];
  if (extent === 0) return scaled(node, a, 0);
  const shifted = plus(node, a, -first);
  const periods = unary(node, scaled(node, shifted, 0.5 / extent), 'floor');
  const within = arithmetic(node, 'sub', shifted, scaled(node, periods, 2 * extent));
  const back = scaled(node, absolute(node, plus(node, within, -extent)), -1);
  return plus(node, back, extent + first);
}

/** The cubic convolution of Keys (1981), a = -0.75, at distances from share + 1 to 2 - share. */
function cubicWeights(node: NodeLowering, share: ValueId): ValueId[] {
  const a = -0.75;
  const polynomial = (t: ValueId, factors: readonly number[]) =>
    factors
      .slice(1)
      .reduce((all, factor) => plus(node, times(node, all, t), factor), node.scalar(factors[0]!));
  const near = (t: ValueId) => polynomial(t, [a + 2, -(a + 3), 0, 1]);
  const far = (t: ValueId) => polynomial(t, [a, -5 * a, 8 * a, -4 * a]);
  const rest = plus(node, scaled(node, share, -1), 1);
  return [far(plus(node, share, 1)), near(share), near(rest), far(plus(node, rest, 1))];
}

function tapsAlong(sampling: Sampling, axis: number, length: number): Tap[] {
  const { node, grid, mode, padding, corners, batch, points } = sampling;
  const own = node.reshape(part(node, grid, 3, axis, axis + 1), [batch, 1, points]);
  const given = plus(node, scaled(node, own, corners ? (length - 1) / 2 : length / 2), (length - 1) / 2);
  const bounded =
    padding === 'zeros' || mode === 'cubic'
      ? given
      : inside(node, padding === 'reflection' ? reflected(sampling, given, length) : given, length);
  const tap = (at: ValueId, weight?: ValueId): Tap => {
    const mirrored = padding === 'reflection' && mode === 'cubic' ? reflected(sampling, at, length) : at;
    const kept = inside(node, mirrored, length);
    if (padding !== 'zeros') return { at: kept, weight };
    // 1 inside, 0 elsewhere: positions are whole numbers.
    const away = absolute(node, arithmetic(node, 'sub', at, kept));
    const counts = plus(node, scaled(node, unary(node, away, 'clip', 0, 1), -1), 1);
    return { at: kept, weight: weight === undefined ? counts : times(node, weight, counts) };
  };
  if (mode === 'nearest') return [tap(unary(node, bounded, 'round'))];
  const base = unary(node, bounded, 'floor');
  const share = arithmetic(node, 'sub', bounded, base);
  if (mode === 'linear') {
    return [tap(base, plus(node, scaled(node, share, -1), 1)), tap(plus(node, base, 1), share)];
  }
  return cubicWeights(node, share).map((weight, i) => tap(plus(node, base, i - 1), weight));
}

/** Values at any positions of an image (Jaderberg et al. 2015), as sums of gathered pixels. */
function gridSample(node: NodeLowering): ValueId {
  const [x, grid] = [node.float(0), node.float(1)];
  const [batch = 0, channels = 0, height = 0, width = 0] = node.shape(x);
  const [images, rows = 0, columns = 0, axes] = node.shape(grid);
  if (node.rank(x) !== 4 || node.rank(grid) !== 4)
    node.unsupported('only images are supported, tensors of four axes');
  if (images !== batch || axes !== 2 || height === 0 || width === 0)
    node.invalid(`its grid [${node.shape(grid)}] doesn't fit its input [${node.shape(x)}]`);
  const mode =
    MODES[node.string('mode', 'linear')] ?? node.invalid(`its mode '${node.string('mode', '')}' is unknown`);
  const named = node.string('padding_mode', 'zeros');
  const padding =
    PADDINGS.find((one) => one === named) ?? node.invalid(`its padding_mode '${named}' is unknown`);
  const corners = node.number('align_corners', 0) !== 0;
  const points = rows * columns;
  const sampling: Sampling = { node, grid, mode, padding, corners, batch, points };

  const pixels = node.reshape(x, [batch, channels, height * width]);
  const shape = [batch, channels, points];
  const across = tapsAlong(sampling, 0, width);
  const weighted = (value: ValueId, weight: ValueId | undefined) =>
    weight === undefined ? value : times(node, value, weight);
  const added = (values: readonly ValueId[]) => values.reduce((a, b) => sum(node, a, b));
  const lines = tapsAlong(sampling, 1, height).map(({ at: y, weight }) => {
    const first = scaled(node, y, width);
    const read = across.map((tap) => {
      const index = node.expand(node.cast(sum(node, first, tap.at), 'int64'), shape);
      const value = node.step('gatherElements', [pixels, index], { dtype: 'float32', shape }, { axis: 2 });
      return weighted(value, tap.weight);
    });
    return weighted(added(read), weight);
  });
  return node.reshape(added(lines), [batch, channels, rows, columns]);
}

export const GRID_SAMPLE: OperatorTable = { GridSample: { lower: gridSample } };
