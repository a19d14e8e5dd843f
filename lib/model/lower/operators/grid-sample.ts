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

/** Where samples read along one axis: whole positions inside the image, and weights. */
interface Tap {
  readonly at: ValueId;
  readonly weight: ValueId | undefined;
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
  const padding = node.string('padding_mode', 'zeros');
  if (!['zeros', 'border', 'reflection'].includes(padding))
    node.invalid(`its padding_mode '${padding}' is unknown`);
  const corners = node.number('align_corners', 0) !== 0;
  const points = rows * columns;

  const number = (value: number) => node.scalar(value);
  const sum = (a: ValueId, b: ValueId) => arithmetic(node, 'add', a, b);
  const plus = (a: ValueId, b: number) => sum(a, number(b));
  const times = (a: ValueId, b: ValueId) => arithmetic(node, 'mul', a, b);
  const inside = (a: ValueId, length: number) => unary(node, a, 'clip', 0, length - 1);
  /** Back and forth between the edges of the image. */
  const reflected = (a: ValueId, length: number) => {
    const [first, extent] = corners ? [0, length - 1] : [-0.5, length];
    if (extent === 0) return times(a, number(0));
    const shifted = plus(a, -first);
    const periods = unary(node, times(shifted, number(0.5 / extent)), 'floor');
    const within = arithmetic(node, 'sub', shifted, times(periods, number(2 * extent)));
    const back = times(absolute(node, plus(within, -extent)), number(-1));
    return plus(back, extent + first);
  };

  const tapsAlong = (axis: number, length: number): Tap[] => {
    const own = node.reshape(part(node, grid, 3, axis, axis + 1), [batch, 1, points]);
    const given = plus(times(own, number(corners ? (length - 1) / 2 : length / 2)), (length - 1) / 2);
    const bounded =
      padding === 'zeros' || mode === 'cubic'
        ? given
        : inside(padding === 'reflection' ? reflected(given, length) : given, length);
    const tap = (at: ValueId, weight?: ValueId): Tap => {
      const kept = inside(padding === 'reflection' && mode === 'cubic' ? reflected(at, length) : at, length);
      if (padding !== 'zeros') return { at: kept, weight };
      // 1 inside, 0 elsewhere: positions are whole numbers.
      const away = absolute(node, arithmetic(node, 'sub', at, kept));
      const counts = plus(times(unary(node, away, 'clip', 0, 1), number(-1)), 1);
      return { at: kept, weight: weight === undefined ? counts : times(weight, counts) };
    };
    if (mode === 'nearest') return [tap(unary(node, bounded, 'round'))];
    const base = unary(node, bounded, 'floor');
    const share = arithmetic(node, 'sub', bounded, base);
    if (mode === 'linear') {
      return [tap(base, plus(times(share, number(-1)), 1)), tap(plus(base, 1), share)];
    }
    // The cubic convolution of Keys (1981), a = -0.75, at distances from share + 1 to 2 - share.
    const a = -0.75;
    const polynomial = (t: ValueId, factors: readonly number[]) =>
      factors.slice(1).reduce((all, factor) => plus(times(all, t), factor), number(factors[0]!));
    const near = (t: ValueId) => polynomial(t, [a + 2, -(a + 3), 0, 1]);
    const far = (t: ValueId) => polynomial(t, [a, -5 * a, 8 * a, -4 * a]);
    const rest = plus(times(share, number(-1)), 1);
    const weights = [far(plus(share, 1)), near(share), near(rest), far(plus(rest, 1))];
    return weights.map((weight, i) => tap(plus(base, i - 1), weight));
  };

  const pixels = node.reshape(x, [batch, channels, height * width]);
  const shape = [batch, channels, points];
  const across = tapsAlong(0, width);
  const weighted = (value: ValueId, weight: ValueId | undefined) =>
    weight === undefined ? value : times(value, weight);
  const added = (values: readonly ValueId[]) => values.reduce(sum);
  const lines = tapsAlong(1, height).map(({ at: y, weight }) => {
    const first = times(y, number(width));
    const read = across.map((tap) => {
      const index = node.expand(node.cast(sum(first, tap.at), 'int64'), shape);
      const value = node.step('gatherElements', [pixels, index], { dtype: 'float32', shape }, { axis: 2 });
      return weighted(value, tap.weight);
    });
    return weighted(added(read), weight);
  });
  return node.reshape(added(lines), [batch, channels, rows, columns]);
}

export const GRID_SAMPLE: OperatorTable = { GridSample: { lower: gridSample } };
