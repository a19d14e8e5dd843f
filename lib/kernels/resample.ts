import { ResidualSkipError } from '../errors.js';
import { floats, type KernelTensor, splitAt } from './tensor.js';

/** Weighted sums of slices along `axis`; throws INVALID_ARGUMENT when an index is out of range. */
export function resample(
  x: KernelTensor,
  indices: KernelTensor,
  weights: KernelTensor,
  y: KernelTensor,
  axis: number,
): void {
  const { outer, length, inner } = splitAt(x.shape, axis);
  const [count = 0, taps = 0] = indices.shape;
  const [from, to, factors] = [floats(x), floats(y), floats(weights)];
  const places = indices.data as Int32Array;
  if (places.some((place) => place < 0 || place >= length)) {
    throw new ResidualSkipError('INVALID_ARGUMENT', `resample: an index is outside [0, ${length - 1}]`);
  }
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < count; i++) {
      const at = (o * count + i) * inner;
      for (let c = 0; c < inner; c++) {
        let sum = 0;
        for (let j = i * taps; j < (i + 1) * taps; j++) {
          sum += factors[j]! * from[(o * length + places[j]!) * inner + c]!;
        }
        to[at + c] = sum;
      }
    }
  }
}
