/** Boxes that a detector answers with, and how many of them two answers share. */
import type { Form, Part, Reader } from './parts.js';
import type { Boxes } from './promise.js';

/** A box as a row: its corners x1, y1, x2, y2, its class and its score. */
const ROW = 6;
/** Of an item's boxes, at most so many count: those with the highest scores. */
const MAX_BOXES = 1000;
/** Of two boxes of one class in the forms of YOLO whose IoU is higher, the one with the lower score is left out. */
const SUPPRESSED_ABOVE = 0.7;

/** What an item's outputs say of its boxes. */
interface Candidates {
  readonly count: number;
  /** Coordinate k of a box. */
  coordinate(box: number, k: number): number;
  /** Its class and score. */
  best(box: number): readonly [number, number];
}

/** Reads boxes as rows, the highest score first; undefined if outputs of this form aren't boxes with scores. */
export function boxReader(form: readonly Form[], { form: kind, score: min }: Boxes): Reader | undefined {
  const candidates = opening(form, kind);
  const overlaps = kind === 'yolo' || kind === 'yolov5';
  if (!candidates) return undefined;
  return (parts) => {
    const { count, coordinate, best } = candidates(parts);
    const rows: number[][] = [];
    for (let box = 0; box < count; box++) {
      const [index, score] = best(box);
      // NaN counts: such a box matches none.
      if (score <= min) continue;
      const [a, b, c, d] = [0, 1, 2, 3].map((k) => coordinate(box, k)) as [number, number, number, number];
      const corners = kind === 'corners' ? [a, b, c, d] : [a - c / 2, b - d / 2, a + c / 2, b + d / 2];
      rows.push([...corners, index, score]);
    }
    rows.sort((one, other) => other[5]! - one[5]!);
    return Float32Array.from((overlaps ? suppressed(rows) : rows).slice(0, MAX_BOXES).flat());
  };
}

type Opened = (parts: readonly Part[]) => Candidates;

function opening(form: readonly Form[], kind: Boxes['form']): Opened | undefined {
  if (kind === 'yolo') return inColumns(form);
  if (kind === 'yolov5') return inRowsOfYolo(form);
  return (kind === 'corners' ? inOneRow(form) : undefined) ?? inRows(form, kind === 'detr');
}

/** One output, floats [boxes, 6] of corners, score and class, as networks with their own suppression write it. */
function inOneRow([first, ...others]: readonly Form[]): Opened | undefined {
  const fits = first && !first.whole && first.dims.length === 2 && first.dims[1] === 6;
  if (!fits || others.length > 0) return undefined;
  return ([part]) => ({
    count: part!.dims[0]!,
    coordinate: (box, k) => part!.data[box * 6 + k]!,
    best: (box) => [part!.data[box * 6 + 5]!, part!.data[box * 6 + 4]!],
  });
}

/** Floats [boxes, 4], scores [boxes] or [boxes, classes], and in the first case classes, integers [boxes], if there are several. */
function inRows(form: readonly Form[], detr: boolean): Opened | undefined {
  const at = (fits: (one: Form) => boolean, not = -1) => form.findIndex((one, i) => i !== not && fits(one));
  const boxes = at(({ dims, whole }) => !whole && dims.length === 2 && dims[1] === 4);
  const count = form[boxes]?.dims[0];
  const scores = at(({ dims, whole }) => !whole && dims[0] === count && dims.length <= 2, boxes);
  const labels = at(({ dims, whole }) => whole === true && dims.length === 1 && dims[0] === count);
  if (count === undefined || scores < 0) return undefined;
  if (detr && (form[scores]!.dims[1] ?? 1) < 2) return undefined;
  return (parts) => {
    const [corners, rated] = [parts[boxes]!.data, parts[scores]!];
    const classes = rated.dims[1] ?? 1;
    return {
      // There may be more boxes, or fewer, than in another answer.
      count: parts[boxes]!.dims[0]!,
      coordinate: (box, k) => corners[box * 4 + k]!,
      best: (box) => {
        const [index, score] = detr
          ? largestProbability(rated.data, box * classes, classes)
          : largest(classes, (c) => rated.data[box * classes + c]!);
        return [labels < 0 ? index : parts[labels]!.data[box]!, score];
      },
    };
  };
}

/** One output, floats [4 + classes, boxes], as YOLO's. */
function inColumns([first, ...others]: readonly Form[]): Opened | undefined {
  const fits = first && !first.whole && first.dims.length === 2 && first.dims[0]! > 4;
  if (!fits || others.length > 0) return undefined;
  return ([part]) => {
    const { data, dims } = part!;
    const [rows, count] = dims as [number, number];
    return {
      count,
      coordinate: (box, k) => data[k * count + box]!,
      best: (box) => largest(rows - 4, (c) => data[(4 + c) * count + box]!),
    };
  };
}

/** One output, floats [boxes, 5 + classes] of centres, objectness and classes, as that of YOLOv3 to v7. */
function inRowsOfYolo([first, ...others]: readonly Form[]): Opened | undefined {
  const fits = first && !first.whole && first.dims.length === 2 && first.dims[1]! > 5;
  if (!fits || others.length > 0) return undefined;
  return ([part]) => {
    const { data, dims } = part!;
    const [count, columns] = dims as [number, number];
    return {
      count,
      coordinate: (box, k) => data[box * columns + k]!,
      best: (box) => {
        const from = box * columns + 4;
        return largest(columns - 5, (c) => data[from]! * data[from + 1 + c]!);
      },
    };
  };
}

function largest(classes: number, scoreOf: (c: number) => number): [number, number] {
  let [index, max] = [0, scoreOf(0)];
  for (let c = 1; c < classes; c++) if (!(scoreOf(c) <= max)) [index, max] = [c, scoreOf(c)];
  return [index, max];
}

/** By a softmax over the classes, of which the last one is no box. */
function largestProbability(logits: ArrayLike<number>, from: number, classes: number): [number, number] {
  const [index, max] = largest(classes - 1, (c) => logits[from + c]!);
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += Math.exp(logits[from + c]! - max);
  return [index, 1 / sum];
}

/** Non-maximum suppression, class by class. @param rows the highest score first */
function suppressed(rows: readonly number[][]): number[][] {
  const kept: number[][] = [];
  for (const row of rows) {
    if (kept.length === MAX_BOXES) break;
    if (!kept.some((other) => other[4] === row[4] && overlap(other, 0, row, 0) > SUPPRESSED_ABOVE))
      kept.push(row);
  }
  return kept;
}

/** Intersection over union of two rows; NaN or 0 for boxes without an area. */
function overlap(a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number): number {
  const side = (low: number, high: number) =>
    Math.max(0, Math.min(a[i + high]!, b[j + high]!) - Math.max(a[i + low]!, b[j + low]!));
  const area = (of: ArrayLike<number>, k: number) => (of[k + 2]! - of[k]!) * (of[k + 3]! - of[k + 1]!);
  const shared = side(0, 2) * side(1, 3);
  return shared / (area(a, i) + area(b, j) - shared);
}

/**
 * The share of the boxes of both answers that have no partner: each box, the highest score first, takes the free box of its class with
 * the largest IoU, if that is `iou` at least. 0 where neither has a box.
 */
export function unmatched(skipping: Float32Array, full: Float32Array, iou: number): number {
  const free = new Set(Array.from({ length: full.length / ROW }, (_, box) => box * ROW));
  const boxes = (skipping.length + full.length) / ROW;
  let matched = 0;
  for (let i = 0; i < skipping.length; i += ROW) {
    let [partner, max] = [-1, iou];
    for (const j of free) {
      if (full[j + 4] !== skipping[i + 4]) continue;
      const shared = overlap(skipping, i, full, j);
      if (shared >= max && (partner < 0 || shared > max)) [partner, max] = [j, shared];
    }
    if (partner < 0) continue;
    free.delete(partner);
    matched++;
  }
  return boxes === 0 ? 0 : 1 - (2 * matched) / boxes;
}
