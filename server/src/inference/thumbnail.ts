import type { Tensor } from 'residual-skip';

/** A small image: base64 bytes, row by row, with interleaved channels. */
export interface Thumbnail {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: string;
}

const LONGEST = 32;

/** An image of a batch item as the network saw it, scaled from darkest to brightest; null if the item is no image. */
export function thumbnailOf(
  feeds: Readonly<Record<string, Tensor>>,
  item: number,
  items: number,
): Thumbnail | null {
  const [tensor, ...others] = Object.values(feeds);
  if (!tensor || others.length > 0 || tensor.type !== 'float32') return null;
  const [count, channels = 0, rows = 0, columns = 0] = tensor.dims;
  if (tensor.dims.length !== 4 || count !== items || (channels !== 1 && channels !== 3)) return null;
  const step = Math.max(1, Math.ceil(Math.max(rows, columns) / LONGEST));
  const [height, width] = [Math.ceil(rows / step), Math.ceil(columns / step)];
  const each = channels * rows * columns;
  const values = (tensor.data as Float32Array).subarray(item * each, (item + 1) * each);
  const seen = Float32Array.from({ length: width * height * channels }, (_, i) => {
    const [pixel, channel] = [Math.floor(i / channels), i % channels];
    const [y, x] = [step * Math.floor(pixel / width), step * (pixel % width)];
    return values[(channel * rows + y) * columns + x]!;
  });
  const low = seen.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = seen.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const bytes = Uint8Array.from(seen, (value) => (255 * (value - low)) / Math.max(high - low, 1e-9));
  return { width, height, channels, data: Buffer.from(bytes).toString('base64') };
}
