/** Spatial geometry of convolutions and pools, with 1 to 3 axes written as 3 (depth, height, width). */
export type Triple = readonly [number, number, number];

export interface Geometry {
  readonly input: Triple;
  readonly output: Triple;
  readonly kernel: Triple;
  readonly stride: Triple;
  readonly dilation: Triple;
  readonly padBegin: Triple;
  readonly padEnd: Triple;
}

interface WindowAttributes {
  readonly strides: readonly number[];
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
}

/** Shapes are (N, C, spatial...); `kernel` has spatial axes only. */
export function geometry(
  xShape: readonly number[],
  yShape: readonly number[],
  kernel: readonly number[],
  window: WindowAttributes,
): Geometry {
  const axes = kernel.length;
  return {
    input: triple(xShape.slice(2), 1),
    output: triple(yShape.slice(2), 1),
    kernel: triple(kernel, 1),
    stride: triple(window.strides, 1),
    dilation: triple(window.dilations, 1),
    padBegin: triple(window.pads.slice(0, axes), 0),
    padEnd: triple(window.pads.slice(axes), 0),
  };
}

function triple(values: readonly number[], missing: number): Triple {
  const lead = 3 - values.length;
  const at = (axis: number) => (axis < lead ? missing : values[axis - lead]!);
  return [at(0), at(1), at(2)];
}

export function volume(dims: Triple): number {
  return dims[0] * dims[1] * dims[2];
}
