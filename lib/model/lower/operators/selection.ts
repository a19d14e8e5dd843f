/** Operators whose results have as many rows as the elements of their inputs say: they are computed, where those are known. */
import { sizeOf } from '../../../numeric/shapes.js';
import type { TensorData } from '../../../tensor/tensor.js';
import type { Sliced } from '../../../util/slices.js';
import type { Value, ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/** Loops give others their turn after so many elements. */
const SLICE = 2 ** 15;

type Known = Value & { readonly data: TensorData };

/** Operand `index` of the type `float32`, with its elements. */
function floats(node: NodeLowering, index: number, what: string): Known & { readonly data: Float32Array } {
  return node.constant(node.float(index), what) as Known & { readonly data: Float32Array };
}

function int64s(node: NodeLowering, shape: readonly number[], list: readonly number[]): ValueId {
  node.afford('int64', list.length);
  return node.constantOf('int64', shape, BigInt64Array.from(list, BigInt));
}

/** Indices of the elements that aren't 0, a column for each, in row-major order. */
function* nonZero(node: NodeLowering): Sliced<readonly ValueId[]> {
  const { shape, data } = node.constant(node.input(0), 'input');
  const found: number[] = [];
  for (let i = 0; i < data.length; i++) {
    // NaN counts.
    if (Number(data[i]) !== 0) found.push(i);
    if (i % SLICE === SLICE - 1) yield;
  }
  const rows = shape.map((length, axis) => {
    const stride = sizeOf(shape.slice(axis + 1));
    return found.map((i) => Math.floor(i / stride) % length);
  });
  return [int64s(node, [shape.length, found.length], rows.flat())];
}

/** The slices along `axis`, or the elements of the flattened input, whose condition holds. */
function compress(node: NodeLowering): ValueId {
  const given = node.input(0);
  const flat = !node.node.attributes.has('axis');
  const x = flat ? node.reshape(given, [sizeOf(node.shape(given))]) : given;
  const axis = flat ? 0 : node.axis(node.number('axis', 0), node.rank(x));
  const { dtype, shape } = node.value(x);
  const marks = node.constant(node.input(1), 'condition').data;
  if (marks.length > shape[axis]!)
    node.invalid(`its condition is longer than axis ${axis} of its input [${shape}]`);
  const kept = Array.from(marks as ArrayLike<number>, (mark, i) => (mark ? i : -1)).filter((i) => i >= 0);
  const indices = int64s(node, [kept.length], kept);
  return node.step('gather', [x, indices], { dtype, shape: shape.with(axis, kept.length) }, { axis });
}

/** Corners x1, y1, x2, y2 of all boxes, [..., 4]. */
function cornersOf(boxes: Float32Array, centred: boolean): Float32Array {
  const corners = new Float32Array(boxes.length);
  for (let i = 0; i < boxes.length; i += 4) {
    const [a, b, c, d] = boxes.subarray(i, i + 4) as unknown as [number, number, number, number];
    const [w, h] = [Math.fround(c / 2), Math.fround(d / 2)];
    corners.set(
      centred
        ? [a - w, b - h, a + w, b + h]
        : [Math.min(b, d), Math.min(a, c), Math.max(b, d), Math.max(a, c)],
      i,
    );
  }
  return corners;
}

/** Whether two boxes overlap by more than `limit`, in float32 as onnxruntime does it. */
function overlaps(corners: Float32Array, i: number, j: number, limit: number): boolean {
  const f = Math.fround;
  const side = (k: number) =>
    f(Math.min(corners[i + k + 2]!, corners[j + k + 2]!) - Math.max(corners[i + k]!, corners[j + k]!));
  const [width, height] = [side(0), side(1)];
  if (!(width > 0 && height > 0)) return false;
  const area = (k: number) => f(f(corners[k + 2]! - corners[k]!) * f(corners[k + 3]! - corners[k + 1]!));
  const [first, second, shared] = [area(i), area(j), f(width * height)];
  const union = f(f(first + second) - shared);
  return first > 0 && second > 0 && union > 0 && f(shared / union) > limit;
}

/** Greedy suppression, class by class; rows of batch, class and box. */
function* nonMaxSuppression(node: NodeLowering): Sliced<readonly ValueId[]> {
  const [boxes, scores] = [floats(node, 0, 'boxes'), floats(node, 1, 'scores')];
  const [batch = 0, count = 0, sides = 0] = boxes.shape;
  const [, classes = 0] = scores.shape;
  if (sides !== 4 || boxes.shape.length !== 3 || scores.shape.join() !== [batch, classes, count].join())
    node.invalid(`its boxes [${boxes.shape}] and scores [${scores.shape}] don't fit together`);
  const max = node.optionalScalar(2, 'max_output_boxes_per_class') ?? 0;
  const limit = Math.fround(node.optionalScalar(3, 'iou_threshold') ?? 0);
  const min = node.optionalScalar(4, 'score_threshold') ?? Number.NEGATIVE_INFINITY;
  const corners = cornersOf(boxes.data, node.number('center_point_box', 0) !== 0);
  const rows: number[] = [];
  for (let slice = 0; slice < batch * classes; slice++) {
    const own = scores.data.subarray(slice * count, (slice + 1) * count);
    const first = Math.floor(slice / classes) * count;
    const kept: number[] = [];
    const order: number[] = [];
    for (let i = 0; i < count; i++) if (own[i]! > min) order.push(i);
    yield;
    order.sort((i, j) => own[j]! - own[i]! || i - j);
    let compared = 0;
    for (const i of order) {
      if (kept.length >= max) break;
      compared += kept.length + 1;
      if (compared >= SLICE) {
        compared = 0;
        yield;
      }
      if (kept.some((j) => overlaps(corners, (first + i) * 4, (first + j) * 4, limit))) continue;
      kept.push(i);
      rows.push(Math.floor(slice / classes), slice % classes, i);
    }
  }
  return [int64s(node, [rows.length / 3, 3], rows)];
}

/** Where the samples of all bins along one axis read; undefined far outside, where they are 0. */
function samplesOf(start: number, bin: number, bins: number, each: number, length: number) {
  return Array.from({ length: bins * each }, (_, k) => {
    const at = start + Math.floor(k / each) * bin + ((k % each) + 0.5) * (bin / each);
    if (!(at >= -1 && at <= length)) return undefined;
    const low = Math.min(Math.max(Math.floor(at), 0), length - 1);
    const share = low === length - 1 ? 0 : Math.max(at, 0) - low;
    return { low, high: Math.min(low + 1, length - 1), share };
  });
}

/** Four pixels for each sample, those of a bin one behind the other: their offsets in a plane, and weights. */
function tapsOf(
  [ys, xs]: readonly [ReturnType<typeof samplesOf>, ReturnType<typeof samplesOf>],
  [down, across]: readonly [number, number],
  width: number,
) {
  const offsets = new Int32Array(4 * ys.length * xs.length);
  const weights = new Float64Array(offsets.length);
  let tap = 0;
  for (let i = 0; i < ys.length; i += down) {
    for (let j = 0; j < xs.length; j += across) {
      for (let sample = 0; sample < down * across; sample++, tap += 4) {
        const [v, u] = [ys[i + Math.floor(sample / across)], xs[j + (sample % across)]];
        if (!u || !v) continue;
        const [upper, lower] = [v.low * width, v.high * width];
        offsets.set([upper + u.low, upper + u.high, lower + u.low, lower + u.high], tap);
        const [above, left] = [1 - v.share, 1 - u.share];
        weights.set([above * left, above * u.share, v.share * left, v.share * u.share], tap);
      }
    }
  }
  return { offsets, weights };
}

/** Bilinear samples in each bin of each region, of which the mean or the largest counts (He et al. 2017). */
function* roiAlign(node: NodeLowering): Sliced<readonly ValueId[]> {
  const [x, rois] = [floats(node, 0, 'input'), floats(node, 1, 'rois')];
  const images = node.integers(node.input(2), 'batch_indices');
  const [batch = 0, channels = 0, height = 0, width = 0] = x.shape;
  const [count = 0, sides] = rois.shape;
  const fits = x.shape.length === 4 && sides === 4 && images.length === count;
  if (!fits || images.some((image) => image < 0 || image >= batch))
    node.invalid(`its input [${x.shape}], rois [${rois.shape}] and batch_indices don't fit together`);
  const [rows, columns] = [node.number('output_height', 1), node.number('output_width', 1)];
  const [ratio, scale] = [node.number('sampling_ratio', 0), node.number('spatial_scale', 1)];
  const mode = node.string('mode', 'avg');
  if (mode !== 'avg' && mode !== 'max') node.invalid(`its mode '${mode}' is unknown`);
  const fallback = node.opset < 16 ? 'output_half_pixel' : 'half_pixel';
  const isHalf = node.string('coordinate_transformation_mode', fallback) === 'half_pixel';
  const shape = [count, channels, rows, columns];
  node.checkShape(shape);
  node.afford('float32', sizeOf(shape));
  const y = new Float32Array(sizeOf(shape));
  const [bins, min] = [rows * columns, isHalf ? Number.NEGATIVE_INFINITY : 1];
  for (let roi = 0; roi < count; roi++) {
    const corners = rois.data.subarray(roi * 4, roi * 4 + 4);
    const at = Array.from(corners, (side) => side * scale - (isHalf ? 0.5 : 0));
    const [left, top, right, bottom] = at as [number, number, number, number];
    const [h, w] = [Math.max(bottom - top, min) / rows, Math.max(right - left, min) / columns];
    const [down, across] = [h, w].map((side) => (ratio > 0 ? ratio : Math.max(Math.ceil(side), 0) || 0)) as [
      number,
      number,
    ];
    const each = 4 * down * across;
    node.afford('int32', 1, each * bins * channels);
    const axes = [samplesOf(top, h, rows, down, height), samplesOf(left, w, columns, across, width)] as const;
    const { offsets, weights } = tapsOf(axes, [down, across], width);
    for (let c = 0; c < channels; c++) {
      const plane = (images[roi]! * channels + c) * height * width;
      const out = (roi * channels + c) * bins;
      for (let bin = 0; bin < bins; bin++) {
        const [first, end] = [bin * each, (bin + 1) * each];
        if (mode === 'avg') {
          let sum = 0;
          for (let tap = first; tap < end; tap++) sum += x.data[plane + offsets[tap]!]! * weights[tap]!;
          y[out + bin] = sum / Math.max(each / 4, 1);
          continue;
        }
        let largest = each > 0 ? Number.NEGATIVE_INFINITY : 0;
        // Of the addends of samples, as ONNX's case and onnxruntime have it.
        for (let tap = first; tap < end; tap++)
          largest = Math.max(largest, x.data[plane + offsets[tap]!]! * weights[tap]!);
        y[out + bin] = largest;
      }
    }
    yield;
  }
  return [node.constantOf('float32', shape, y)];
}

const always = () => true;

export const SELECTION: OperatorTable = {
  NonZero: { lower: nonZero, dataDependent: always },
  Compress: { lower: compress, dataDependent: always },
  NonMaxSuppression: { lower: nonMaxSuppression, dataDependent: always, constantInputs: [2, 3, 4] },
  RoiAlign: { lower: roiAlign, dataDependent: always },
};
