/** Where the elements of a value lie in the tensor that it was cut out of. */
import { denseStrides } from '../../kernels/tensor.js';
import { sizeOf } from '../../numeric/shapes.js';
import type { ValueId } from '../program/program.js';
import { scalarOf } from './layer-norm.js';
import type { Region } from './region.js';

/** Element i of the value is `factor` times element offset + sum of i[axis] * strides[axis] of `source`. */
export interface Strided {
  readonly source: ValueId;
  readonly offset: number;
  readonly strides: readonly number[];
  readonly factor: number;
}

/** Strides under another shape, if that needs no copy: axes that are joined must follow each other in memory. */
export function reshapedStrides(
  shape: readonly number[],
  strides: readonly number[],
  target: readonly number[],
): number[] | undefined {
  const from = shape.flatMap((length, axis) => (length === 1 ? [] : [{ length, stride: strides[axis]! }]));
  const result = new Array<number>(target.length).fill(0);
  let [i, to] = [0, 0];
  while (i < from.length) {
    let [left, right] = [from[i]!.length, 1];
    let last = i;
    const first = to;
    while (left !== right) {
      if (left < right) {
        last++;
        if (last >= from.length || from[last - 1]!.stride !== from[last]!.length * from[last]!.stride)
          return undefined;
        left *= from[last]!.length;
      } else {
        if (to >= target.length) return undefined;
        right *= target[to++]!;
      }
    }
    let stride = from[last]!.stride;
    for (let axis = to - 1; axis >= first; axis--) {
      result[axis] = stride;
      stride *= target[axis]!;
    }
    i = last + 1;
  }
  return result;
}

/** Follows a value back through steps that only move elements or multiply them by one number. */
export function stridedView(region: Region, id: ValueId): Strided {
  const shape = region.shape(id);
  const whole: Strided = { source: id, offset: 0, strides: denseStrides(shape), factor: 1 };
  const op = region.producer(id);
  if (!op || sizeOf(shape) === 0) return whole;
  switch (op.op) {
    case 'transpose': {
      const x = stridedView(region, op.inputs[0]!);
      return { ...x, strides: op.attrs.perm.map((axis) => x.strides[axis]!) };
    }
    case 'reshape': {
      const x = stridedView(region, op.inputs[0]!);
      const strides = reshapedStrides(region.shape(op.inputs[0]!), x.strides, shape);
      return strides ? { ...x, strides } : whole;
    }
    case 'slice': {
      const { starts, steps } = op.attrs;
      if (steps.some((step) => step < 1)) return whole;
      const x = stridedView(region, op.inputs[0]!);
      const offset = starts.reduce((sum, start, axis) => sum + start * x.strides[axis]!, x.offset);
      return { ...x, offset, strides: x.strides.map((stride, axis) => stride * steps[axis]!) };
    }
    case 'gather': {
      const picked = region.value(op.inputs[1]!);
      if (picked.data?.length !== 1) return whole;
      const { axis } = op.attrs;
      const x = stridedView(region, op.inputs[0]!);
      const index = Number(picked.data[0]);
      const at = index < 0 ? index + region.shape(op.inputs[0]!)[axis]! : index;
      const kept = picked.shape.map(() => 0);
      const strides = [...x.strides.slice(0, axis), ...kept, ...x.strides.slice(axis + 1)];
      return { ...x, offset: x.offset + at * x.strides[axis]!, strides };
    }
    case 'expand': {
      const from = region.shape(op.inputs[0]!);
      const x = stridedView(region, op.inputs[0]!);
      const lead = shape.length - from.length;
      const strides = shape.map((length, axis) =>
        axis < lead || from[axis - lead] !== length ? 0 : x.strides[axis - lead]!,
      );
      return { ...x, strides };
    }
    case 'binary': {
      const { kind, act } = op.attrs;
      if (act.kind !== 'none' || (kind !== 'mul' && kind !== 'div')) return whole;
      for (const [from, by] of [[0, 1], ...(kind === 'mul' ? [[1, 0]] : [])] as [number, number][]) {
        const factor = scalarOf(region, op.inputs[by]!);
        const x = op.inputs[from]!;
        if (factor === undefined || factor === 0 || region.shape(x).length !== shape.length) continue;
        const view = stridedView(region, x);
        return { ...view, factor: view.factor * (kind === 'mul' ? factor : 1 / factor) };
      }
      return whole;
    }
    default:
      return whole;
  }
}
