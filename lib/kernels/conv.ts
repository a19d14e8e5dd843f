import { sizeOf } from '../numeric/shapes.js';
import { activate } from './activation.js';
import { dot, packed, packedLength, packWeights } from './dot.js';
import type { Operations } from './operations.js';
import { floats, type KernelTensor, Scratch } from './tensor.js';
import { type Geometry, geometry, type Triple, volume } from './window.js';

const paddedScratch = new Scratch((n) => new Float32Array(n));
const baseScratch = new Scratch((n) => new Int32Array(n));
const offsetScratch = new Scratch((n) => new Int32Array(n));

/** y = act(conv(x) + bias + residual); `residual` may be the same memory as `y`. */
export function conv(
  x: KernelTensor,
  w: KernelTensor,
  bias: KernelTensor | undefined,
  residual: KernelTensor | undefined,
  y: KernelTensor,
  attrs: Operations['conv'],
): void {
  const geo = geometry(x.shape, y.shape, w.shape.slice(2), attrs);
  const [items = 0, channels = 0] = x.shape;
  const outChannels = w.shape[0]!;
  const { group } = attrs;
  const groupIn = channels / group;
  const groupOut = outChannels / group;
  const depthwise = groupIn === 1 && groupOut === 1;
  const taps = volume(geo.kernel);
  const depth = groupIn * taps;
  const columns = volume(geo.output);
  const inPlane = volume(geo.input);

  // Every element that some window reads lies inside the extent, so that the inner loops need no bounds.
  const extent = readExtent(geo);
  const padding = needsPadding(geo, extent);
  const dims = padding ? extent : geo.input;
  const plane = volume(dims);
  const bases = windowBases(geo, dims);
  const offsets = tapOffsets(geo, dims, groupIn);
  const source = padding ? paddedScratch.atLeast(channels * plane) : floats(x);
  if (padding) source.fill(0, 0, channels * plane);

  const weights = depthwise ? floats(w) : packedGroups(w, group, groupOut, depth);
  const weightsOfGroup = depthwise ? taps : packedLength(groupOut, depth);

  for (let item = 0; item < items; item++) {
    if (padding) copyPadded(floats(x), item * channels * inPlane, channels, geo, extent, source);
    const xItem = padding ? 0 : item * channels * inPlane;
    const yItem = item * outChannels * columns;
    for (let g = 0; g < group; g++) {
      const args = {
        x: source,
        xStart: xItem + g * groupIn * plane,
        bases,
        columns,
        offsets,
        weights,
        weightsStart: g * weightsOfGroup,
        rows: groupOut,
        depth,
        y: floats(y),
        yStart: yItem + g * groupOut * columns,
        yRowStride: columns,
        yColumnStride: 1,
        bias: bias && floats(bias),
        biasStart: g * groupOut,
        residual: residual && floats(residual),
      };
      if (depthwise) depthwisePlane(args);
      else dot(args);
    }
  }
  if (attrs.act.kind !== 'none') activate(floats(y), floats(y), sizeOf(y.shape), attrs.act);
}

/** The weights of each group in the order in which `dot` reads them. */
function packedGroups(w: KernelTensor, group: number, groupOut: number, depth: number): Float32Array {
  const weights = floats(w);
  const size = packedLength(groupOut, depth);
  const key = `conv ${group} ${groupOut} ${depth}`;
  return packed(weights, w.constant === true, key, size * group, (to) => {
    for (let g = 0; g < group; g++)
      packWeights(weights, g * groupOut * depth, groupOut, depth, depth, 1, to, g * size);
  });
}

/** Extent of the input, counted from the first padded element, that the windows cover. */
function readExtent({ output, kernel, stride, dilation }: Geometry): Triple {
  const along = (axis: 0 | 1 | 2) =>
    Math.max(0, (output[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1);
  return [along(0), along(1), along(2)];
}

function needsPadding({ input, padBegin }: Geometry, extent: Triple): boolean {
  return padBegin.some((pad) => pad !== 0) || extent.some((length, axis) => length > input[axis]!);
}

/** Copies one item's planes to their positions inside the extent; what lies outside is dropped. */
function copyPadded(
  x: Float32Array,
  xStart: number,
  channels: number,
  { input, padBegin }: Geometry,
  extent: Triple,
  to: Float32Array,
): void {
  const first = padBegin.map((pad) => Math.max(0, -pad));
  const last = input.map((length, axis) => Math.min(length, extent[axis]! - padBegin[axis]!));
  for (let c = 0; c < channels; c++) {
    for (let d = first[0]!; d < last[0]!; d++) {
      for (let h = first[1]!; h < last[1]!; h++) {
        const from = xStart + ((c * input[0] + d) * input[1] + h) * input[2];
        const at =
          ((c * extent[0] + d + padBegin[0]) * extent[1] + h + padBegin[1]) * extent[2] + padBegin[2];
        for (let i = first[2]!; i < last[2]!; i++) to[at + i] = x[from + i]!;
      }
    }
  }
}

/** Start of the window of every output element, in planes of `dims`. */
function windowBases({ output, stride }: Geometry, dims: Triple): Int32Array {
  const bases = baseScratch.atLeast(volume(output));
  let p = 0;
  for (let d = 0; d < output[0]; d++) {
    for (let h = 0; h < output[1]; h++) {
      const row = (d * stride[0] * dims[1] + h * stride[1]) * dims[2];
      for (let i = 0; i < output[2]; i++) bases[p++] = row + i * stride[2];
    }
  }
  return bases;
}

/** Offset of element (channel, tap) of a window from the window's start. */
function tapOffsets({ kernel, dilation }: Geometry, dims: Triple, channels: number): Int32Array {
  const offsets = offsetScratch.atLeast(channels * volume(kernel));
  let k = 0;
  for (let c = 0; c < channels; c++) {
    for (let d = 0; d < kernel[0]; d++) {
      for (let h = 0; h < kernel[1]; h++) {
        const row = ((c * dims[0] + d * dilation[0]) * dims[1] + h * dilation[1]) * dims[2];
        for (let i = 0; i < kernel[2]; i++) offsets[k++] = row + i * dilation[2];
      }
    }
  }
  return offsets;
}

/** One channel of a depthwise convolution: one row of weights, four columns at a time. */
function depthwisePlane(args: Parameters<typeof dot>[0]): void {
  const { x, xStart, bases, columns, offsets, weights: w, weightsStart, depth, y, yStart, residual } = args;
  const shift = args.bias ? args.bias[args.biasStart]! : 0;
  const last = columns - 1;
  for (let p = 0; p < columns; p += 4) {
    const b0 = xStart + bases[p]!;
    const b1 = xStart + bases[Math.min(p + 1, last)]!;
    const b2 = xStart + bases[Math.min(p + 2, last)]!;
    const b3 = xStart + bases[Math.min(p + 3, last)]!;
    let s0 = shift;
    let s1 = shift;
    let s2 = shift;
    let s3 = shift;
    for (let k = 0; k < depth; k++) {
      const offset = offsets[k]!;
      const weight = w[weightsStart + k]!;
      s0 += weight * x[b0 + offset]!;
      s1 += weight * x[b1 + offset]!;
      s2 += weight * x[b2 + offset]!;
      s3 += weight * x[b3 + offset]!;
    }
    const at = yStart + p;
    y[at] = residual ? s0 + residual[at]! : s0;
    if (p + 1 <= last) y[at + 1] = residual ? s1 + residual[at + 1]! : s1;
    if (p + 2 <= last) y[at + 2] = residual ? s2 + residual[at + 2]! : s2;
    if (p + 3 <= last) y[at + 3] = residual ? s3 + residual[at + 3]! : s3;
  }
}
