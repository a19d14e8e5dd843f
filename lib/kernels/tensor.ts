import { sizeOf } from '../numeric/shapes.js';
import type { TensorData, ValueType } from '../tensor/tensor.js';

/** A dense row-major tensor that a kernel reads or fills. */
export interface KernelTensor {
  readonly dtype: ValueType;
  readonly shape: readonly number[];
  readonly data: TensorData;
  /** The elements never change, so a kernel may keep a packed form of them as long as `data` lives. */
  readonly constant?: boolean;
}

/** Strides, in elements, of a dense row-major tensor. */
export function denseStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** Strides that read a dense tensor of `shape` as if it were numpy-broadcast to `target`: 0 along repeated axes. */
export function broadcastStrides(shape: readonly number[], target: readonly number[]): number[] {
  const dense = denseStrides(shape);
  const lead = target.length - shape.length;
  return target.map((_, axis) => (axis < lead || shape[axis - lead] === 1 ? 0 : dense[axis - lead]!));
}

/** The elements of a float32 tensor. */
export function floats(tensor: KernelTensor): Float32Array {
  return tensor.data as Float32Array;
}

/** Elements of the axes before `axis`, of `axis` itself, and of those after it. */
export function splitAt(
  shape: readonly number[],
  axis: number,
): { outer: number; length: number; inner: number } {
  return {
    outer: sizeOf(shape.slice(0, axis)),
    length: shape[axis] ?? 1,
    inner: sizeOf(shape.slice(axis + 1)),
  };
}

/**
 * Scratch memory that grows and is never freed, so that a kernel allocates nothing in steady state. Kernels are
 * synchronous, so each slot has one user at a time; contents don't outlive the kernel's call.
 */
export class Scratch<A extends Float32Array | Float64Array | Int32Array> {
  private array: A;

  constructor(private readonly make: (length: number) => A) {
    this.array = make(0);
  }

  atLeast(length: number): A {
    if (this.array.length < length) this.array = this.make(length);
    return this.array;
  }
}
