/** Whether pixels are what a network was trained on, where no file says how they are prepared. */
import { PRESET_FIELDS, type PreprocessorPreset } from '../data/presets.js';
import type { FirstLayer } from '../model/read/first-layer.js';
import { mean } from '../numeric/statistics.js';
import type { Tensor } from '../tensor/tensor.js';

/** Those that differ in what becomes of a pixel; the first fits best where several do as well. */
const CANDIDATES = ['imagenet', 'symmetric', 'bytes'] as const satisfies readonly PreprocessorPreset[];
/** Places of an image that its statistics are taken from, along each side. */
const PLACES = 16;
/** Between what a layer expects and what it gets, in nats: where pixels of 0..1 are foreign to it, and where those of a preset fit. */
const FOREIGN = 0.7;
const FITTING = 1.2;
/** Photographs have a mean of about 0.45 and a deviation of about 0.25; one image may be lighter, darker or duller. */
const USUAL_MEAN = 0.5;
const USUAL_DEVIATION = 0.25;
/** From here on, pixels are numbers up to 255. */
const MIN_OF_BYTES = 8;

/** x -> scale * x + offset, of each channel. */
interface Map {
  readonly scale: readonly number[];
  readonly offset: readonly number[];
}

/**
 * What to say of a network whose preprocessing is a guess: which preset would fit, where pixels of 0 to 1 are far from what its first
 * normalisation expects.
 * @param file of the model
 * @param layer its first; undefined where it keeps no statistics
 * @param pixels float32[1, channels, height, width], from 0 to 1
 */
export function guessOf(file: string, layer: FirstLayer | undefined, pixels: Tensor<'float32'>): string {
  const doubt = layer && doubtOf(layer, pixels);
  return `there is no preprocessor_config.json beside ${file}; pixels are scaled to 0..1${doubt ?? ANY_GUESS}`;
}

const ANY_GUESS =
  ', and a network that was trained on others, as most are, can lose half of its right answers unnoticed; add the file, or say how ' +
  'pixels are prepared (preprocessor, --preprocessor, --mean, --std)';

/** @returns undefined where the pixels fit, or it can't be known */
function doubtOf(layer: FirstLayer, pixels: Tensor<'float32'>): string | undefined {
  const [, channels, ...kernel] = layer.shape;
  const isSmaller = kernel.some((length, axis) => length > pixels.dims[axis + 2]!);
  if (channels !== pixels.dims[1] || isSmaller) return undefined;
  const found = layer.variance ? fromStatistics(layer, layer.variance, pixels) : fromBias(layer, pixels);
  if (!found) return undefined;
  const { expected, received, presets } = found;
  const [first, ...others] = presets.map((name) => `'${name}'`);
  const advice = first
    ? `try preprocessor: ${[first, ...others].join(' or ')} (--preprocessor ${presets.join(' or ')})`
    : 'no preset fits, so say how pixels are prepared (preprocessor, --mean, --std)';
  return (
    ` and have a mean of ${received.toFixed(2)} here, but this network's first normalisation expects a mean of about ` +
    `${expected.toFixed(Math.abs(expected) < MIN_OF_BYTES ? 1 : 0)}: many of its answers will be wrong; ${advice}, or add the file`
  );
}

interface Found {
  /** Mean of the pixels. */
  readonly expected: number;
  readonly received: number;
  readonly presets: readonly PreprocessorPreset[];
}

/** Compares the sums of the filters over the image with their means and variances in training. */
function fromStatistics(
  layer: FirstLayer,
  variance: Float64Array,
  pixels: Tensor<'float32'>,
): Found | undefined {
  const sums = filterSums(layer, pixels);
  const divergence = (map: Map) => {
    const each = layer.mean.map((expected, c) => {
      const [average, spread] = momentsOf(sums, c, map);
      const ratio = Math.max(spread, 1e-12) / variance[c]!;
      return (ratio + (average - expected) ** 2 / variance[c]! - 1 - Math.log(ratio)) / 2;
    });
    return each.sort()[each.length >> 1]!;
  };
  const channels = pixels.dims[1]!;
  const received = divergence(mapOf('unit', channels)!);
  const rated = CANDIDATES.flatMap((name) => {
    const map = mapOf(name, channels);
    return map ? [{ name, rate: divergence(map) }] : [];
  }).sort((a, b) => a.rate - b.rate);
  const [best] = rated;
  // Of a dull image all presets are foreign.
  if (received < FOREIGN || !best || best.rate > received / 3) return undefined;
  const presets = best.rate < FITTING ? [best.name] : [];
  return { expected: expectedMean(layer).mean, received: mean(pixels.data), presets };
}

/** Compares the image's mean with the one that the bias makes up for. */
function fromBias(layer: FirstLayer, pixels: Tensor<'float32'>): Found | undefined {
  const { mean: expected, error } = expectedMean(layer);
  const received = mean(pixels.data);
  const [least, most] = [Math.min(received, USUAL_MEAN), Math.max(received, USUAL_MEAN)];
  const beyond = Math.max(least - expected, expected - most, 0);
  if (beyond < Math.hypot(USUAL_DEVIATION, error)) return undefined;
  const isBytes = expected > MIN_OF_BYTES;
  // What is above 1 and no byte, or far below 0, is neither.
  const centred = Math.abs(expected) < 1 + error;
  const possible: readonly PreprocessorPreset[] = isBytes
    ? ['bytes']
    : centred
      ? ['imagenet', 'symmetric']
      : [];
  const presets = possible.filter((name) => mapOf(name, pixels.dims[1]!) !== undefined);
  return { expected, received, presets };
}

/** What a preset makes of pixels of 0 to 1; undefined if it isn't for so many channels. */
function mapOf(name: PreprocessorPreset, channels: number): Map | undefined {
  const {
    image_mean: means = 0,
    image_std: deviations = 1,
    do_rescale: rescales = true,
  } = PRESET_FIELDS[name](1);
  if ([means, deviations].some((list) => typeof list !== 'number' && list.length !== channels))
    return undefined;
  const of = (list: number | readonly number[], c: number) => (typeof list === 'number' ? list : list[c]!);
  const each = Array.from({ length: channels }, (_, c) => c);
  return {
    scale: each.map((c) => (rescales ? 1 : 255) / of(deviations, c)),
    offset: each.map((c) => -of(means, c) / of(deviations, c)),
  };
}

/** The sum of each filter's weights for each channel, [filters][channels]. */
function weightSums({ weights, shape }: FirstLayer): Float64Array[] {
  const [filters, channels, height, width] = shape;
  const area = height * width;
  return Array.from({ length: filters }, (_, c) =>
    Float64Array.from({ length: channels }, (__, k) => {
      const first = (c * channels + k) * area;
      return weights.subarray(first, first + area).reduce((sum, weight) => sum + weight, 0);
    }),
  );
}

/** Least squares: the mean of all pixels that explains the means of the filters' sums best, and its standard error. */
function expectedMean(layer: FirstLayer): { readonly mean: number; readonly error: number } {
  const sums = weightSums(layer).map((row) => row.reduce((sum, one) => sum + one, 0));
  const squares = sums.reduce((sum, one) => sum + one * one, 0) || 1;
  const average = sums.reduce((sum, one, c) => sum + one * layer.mean[c]!, 0) / squares;
  const rest = sums.reduce((sum, one, c) => sum + (layer.mean[c]! - one * average) ** 2, 0);
  return { mean: average, error: Math.sqrt(rest / Math.max(sums.length - 1, 1) / squares) };
}

interface FilterSums {
  /** Of each place, filter and channel. */
  readonly parts: Float64Array;
  readonly weights: readonly Float64Array[];
  readonly places: number;
}

/** What each filter makes of each channel at places all over the image. */
function filterSums(layer: FirstLayer, { data, dims }: Tensor<'float32'>): FilterSums {
  const { weights } = layer;
  const [filters, channels, tall, wide] = layer.shape;
  const [, , height, width] = dims as [number, number, number, number];
  const [rows, columns] = [spread(height - tall), spread(width - wide)];
  const parts: number[] = [];
  for (const y of rows) {
    for (const x of columns) {
      for (let part = 0; part < filters * channels; part++) {
        const plane = (part % channels) * height * width;
        let sum = 0;
        for (let i = 0; i < tall; i++) {
          const row = plane + (y + i) * width + x;
          for (let j = 0; j < wide; j++) sum += weights[(part * tall + i) * wide + j]! * data[row + j]!;
        }
        parts.push(sum);
      }
    }
  }
  return {
    parts: Float64Array.from(parts),
    weights: weightSums(layer),
    places: rows.length * columns.length,
  };
}

/** Up to PLACES numbers from 0 to `last`, all different. */
function spread(last: number): number[] {
  const count = Math.min(PLACES, last + 1);
  return Array.from({ length: count }, (_, i) => (count === 1 ? 0 : Math.round((i * last) / (count - 1))));
}

/** Mean and variance of a filter's sums of pixels that are mapped. */
function momentsOf({ parts, weights, places }: FilterSums, filter: number, { scale, offset }: Map) {
  const channels = scale.length;
  const shift = offset.reduce((sum, one, k) => sum + one * weights[filter]![k]!, 0);
  const values = Array.from({ length: places }, (_, place) => {
    const first = (place * weights.length + filter) * channels;
    return scale.reduce((sum, one, k) => sum + one * parts[first + k]!, shift);
  });
  const average = mean(values);
  return [average, mean(values.map((value) => (value - average) ** 2))] as const;
}
