import type { Shape } from '../../numeric/shapes.js';
import type { IrStep } from '../program/ir.js';
import type { OpName } from '../program/program.js';

/**
 * Where the items of a batch are in a value: on `axis`, each at `post` neighbouring positions. `post` is 1 where the
 * axis is the batch itself, more where a reshape has merged later axes into it. Earlier axes may be merged into it, too:
 * then the items are there once for each of their positions.
 */
export interface Batch {
  readonly axis: number;
  readonly post: number;
}

/** One step as a rule sees it. */
export interface View {
  /** Where the batch is in each input; undefined in inputs that all items share. */
  readonly batches: readonly (Batch | undefined)[];
  /** Shapes of the inputs; [] for an absent one. */
  readonly shapes: readonly Shape[];
  /** Of the first output. */
  readonly output: Shape;
  readonly items: number;
  /**
   * Whether input `index` is a constant that repeats the same elements for each item, if it holds the items at `batch`. It
   * then counts as such, and one item reads one of the repetitions.
   */
  readonly repeats: (index: number, batch: Batch) => boolean;
}

/** Where the batch is in the outputs of a step with a batched input; undefined when the step mixes items. */
type Rule<Step> = (view: View, step: Step) => Batch | undefined;

type StepOf<Op> = Extract<IrStep, { op: Op }>;

export const sameBatch = (a: Batch | undefined, b: Batch | undefined): boolean =>
  a?.axis === b?.axis && a?.post === b?.post;

/** Of steps that mix items whatever their shapes are. */
export const mixes = (): undefined => undefined;

/** The batch of the first input, which alone may be batched. */
const first = ({ batches: [x, ...others] }: View): Batch | undefined =>
  others.every((batch) => batch === undefined) ? x : undefined;

/** The first input's batch, unless it is on one of `axes`, along which the step mixes elements. */
const across = (view: View, ...axes: readonly number[]): Batch | undefined => {
  const batch = first(view);
  return batch && !axes.includes(batch.axis) ? batch : undefined;
};

/** Numpy broadcasting: items meet their own. */
const aligned = (view: View): Batch | undefined => broadcast(view, 0);

/** Numpy broadcasting over all axes but the last `own`. */
const broadcast = (view: View, own: number): Batch | undefined => {
  const { batches, shapes, output } = view;
  const shift = (i: number) => output.length - shapes[i]!.length;
  const moved = batches.map((batch, i) => batch && { ...batch, axis: batch.axis + shift(i) });
  const found = moved.find((batch) => batch !== undefined)!;
  const fits = moved.every((batch, i) => {
    if (batch) return sameBatch(batch, found);
    const axis = found.axis - shift(i);
    const length = axis < 0 ? 1 : (shapes[i]![axis] ?? 1);
    return length === 1 || view.repeats(i, { ...found, axis });
  });
  return fits && found.axis < output.length - own ? found : undefined;
};

/** A batch on the rows of a matrix product stays there; on later axes of the right side, likewise. */
const product = (view: View): Batch | undefined => {
  const { batches, shapes, output } = view;
  const [a, b] = batches;
  const rank = output.length;
  const onRows = a?.axis === shapes[0]!.length - 2;
  const onColumns = b?.axis === shapes[1]!.length - 1;
  if (onRows && !b) return { ...a, axis: rank - 2 };
  if (onColumns && !a) return { ...b, axis: rank - 1 };
  return broadcast(view, 2);
};

/** Reduction over `axes`; the output may have lost them. */
const reduced = (view: View, axes: readonly number[]): Batch | undefined => {
  const batch = across(view, ...axes);
  if (!batch || view.output.length === view.shapes[0]!.length) return batch;
  return { ...batch, axis: batch.axis - axes.filter((axis) => axis < batch.axis).length };
};

/** The same elements under the shape of the output, if one of its axes holds the items. */
const reshaped = ({ batches: [batch], shapes: [from], output, items }: View): Batch | undefined => {
  if (output.includes(0)) return emptied(from!, output, batch!, items);
  let distance = batch!.post * elements(from!.slice(batch!.axis + 1));
  for (let axis = output.length - 1; axis >= 0; axis--) {
    const length = output[axis]!;
    if (distance < length) return length % (distance * items) === 0 ? { axis, post: distance } : undefined;
    if (distance % length !== 0) return undefined;
    distance /= length;
  }
  return undefined;
};

/** Without elements, any axis can hold the items: the same as before, or else the first with one position for each. */
function emptied(from: Shape, output: Shape, batch: Batch, items: number): Batch | undefined {
  if (output[batch.axis] === from[batch.axis]) return batch;
  const axis = output.indexOf(items);
  return axis < 0 ? undefined : { axis, post: 1 };
}

/** All inputs hold the items on the same axis, which isn't the one that the step works along. */
const together = (view: View, axis: number): Batch | undefined => {
  const batch = view.batches.find((other) => other !== undefined)!;
  const fits = view.batches.every((other, i) => (other ? sameBatch(other, batch) : view.repeats(i, batch)));
  return fits && batch.axis !== axis ? batch : undefined;
};

const elements = (lengths: Shape): number => lengths.reduce((a, b) => a * b, 1);

const gathered = ({ batches: [data, indices], shapes }: View, axis: number): Batch | undefined => {
  if (data && indices) return undefined;
  if (indices) return { ...indices, axis: indices.axis + axis };
  if (data!.axis === axis) return undefined;
  return data!.axis < axis ? data : { ...data!, axis: data!.axis - 1 + shapes[1]!.length };
};

/** What a pool over the axes behind the first two keeps. */
const pooled = (view: View): Batch | undefined => {
  const batch = first(view);
  return batch && batch.axis < 2 ? batch : undefined;
};

/** Positions of the batch axis have no scales of their own. */
const scaled = (view: View, { attrs: { axis } }: { readonly attrs: { readonly axis: number } }) =>
  elements(view.shapes[1]!) === 1 ? first(view) : across(view, axis);

export const BATCH_RULES: { readonly [Op in Exclude<OpName, 'branch' | 'jump'>]: Rule<StepOf<Op>> } = {
  conv: (view) => (first(view)?.axis === 0 ? first(view) : undefined),
  gemm: (view, { attrs }) => {
    const [a, b, c] = view.batches;
    if (a && !b && !c) return a.axis < view.shapes[0]!.length - 1 ? a : undefined;
    const columns = attrs.transB ? 0 : 1;
    const shifted = view.shapes[2]!.length > 0;
    return b && !a && !shifted && b.axis === columns ? { ...b, axis: view.output.length - 1 } : undefined;
  },
  matmul: product,
  affine: (view) => across(view, 1),
  unary: first,
  binary: aligned,
  compare: aligned,
  logical: aligned,
  where: aligned,
  cast: first,
  // Indices count across all items.
  pool: (view, { outputs }) => {
    const batch = first(view);
    return batch && outputs.length === 1 && batch.axis < 2 ? batch : undefined;
  },
  globalPool: pooled,
  reduceMean: (view, { attrs }) => reduced(view, attrs.axes),
  softmax: (view, { attrs }) => across(view, attrs.axis),
  layerNorm: (view, { attrs }) => across(view, attrs.axis),
  // Made only after batches have been analysed.
  attention: mixes,
  argMax: (view, { attrs }) => reduced(view, [attrs.axis]),
  topK: (view, { attrs }) => across(view, attrs.axis),
  oneHot: (view, { attrs }) => {
    const batch = first(view);
    return batch && { ...batch, axis: batch.axis < attrs.axis ? batch.axis : batch.axis + 1 };
  },
  gather: (view, { attrs }) => gathered(view, attrs.axis),
  transpose: (view, { attrs }) => {
    const batch = first(view);
    return batch && { ...batch, axis: attrs.perm.indexOf(batch.axis) };
  },
  pad: (view, { attrs }) => {
    const batch = first(view);
    const rank = view.output.length;
    return batch && attrs.pads[batch.axis] === 0 && attrs.pads[batch.axis + rank] === 0 ? batch : undefined;
  },
  slice: (view, { attrs }) => {
    const batch = first(view);
    const axis = batch?.axis ?? 0;
    const whole = attrs.steps[axis] === 1 && view.output[axis] === view.shapes[0]![axis];
    return batch && whole ? batch : undefined;
  },
  concat: (view, { attrs }) => together(view, attrs.axis),
  reshape: reshaped,
  expand: aligned,
  quantize: scaled,
  dequantize: scaled,
  // One range for all items.
  dynamicQuantize: mixes,
  qconv: (view) => (first(view)?.axis === 0 ? first(view) : undefined),
  qmatmul: ({ batches: [a, b, ...others], shapes, ...rest }) =>
    others.every((batch) => batch === undefined)
      ? product({ ...rest, batches: [a, b], shapes: shapes.slice(0, 2) })
      : undefined,
  qbinary: aligned,
  qglobalPool: pooled,
  qpool: pooled,
  lookup: first,
  reduce: (view, { attrs }) => reduced(view, attrs.axes),
  cumSum: (view, { attrs }) => across(view, attrs.axis),
  resample: (view, { attrs }) => across(view, attrs.axis),
  gatherElements: (view, { attrs }) => {
    const [data, indices] = view.batches;
    return !data && indices!.axis === attrs.axis ? indices : together(view, attrs.axis);
  },
  gatherNd: ({ batches: [data, indices], shapes }, { attrs: { batchDims } }) => {
    const rows = shapes[1]!.length - 1;
    if (data && indices) return sameBatch(data, indices) && data.axis < batchDims ? data : undefined;
    if (indices) return indices.axis >= batchDims && indices.axis < rows ? indices : undefined;
    const named = batchDims + shapes[1]![rows]!;
    return data!.axis >= named ? { ...data!, axis: data!.axis - named + rows } : undefined;
  },
  scatterElements: (view, { attrs }) => together(view, attrs.axis),
  // Indices name positions on the axes of all items.
  scatterNd: mixes,
};
