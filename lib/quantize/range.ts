/** Scale and zero point of activations: 8 bits without sign, x = scale * (q - zero). */
import type { Histogram } from './histogram.js';

export interface Quantisation {
  /** A float32 number. */
  readonly scale: number;
  /** 0 to 255. */
  readonly zero: number;
}

/**
 * How the range of an activation is chosen. `max`: all that was observed. `percentile`: all but a ten-thousandth on either
 * side. `error`: the least squared error.
 */
export const RANGES = ['error', 'percentile', 'max'] as const;
export type RangeMethod = (typeof RANGES)[number];

const LEVELS = 255;
const LEFT_OUT = 1e-4;
/** Smaller scales would make scales of biases that float32 can't hold precisely. */
const MIN_SCALE = 2 ** -60;
/** Fractions of the observed range that are tried. */
const FRACTIONS = Array.from({ length: 81 }, (_, i) => 1 - i / 100);

export function quantisationOf(histogram: Histogram, method: RangeMethod): Quantisation {
  const { min, max } = histogram;
  if (method === 'max') return coded(min, max);
  const sums = new Sums(histogram);
  if (method === 'percentile')
    return coded(Math.max(min, sums.quantile(LEFT_OUT)), Math.min(max, sums.quantile(1 - LEFT_OUT)));
  // Both ends in turn, from the ends as observed.
  let [low, high] = [min, max];
  for (let round = 0; round < 3; round++) {
    high = best(
      FRACTIONS.map((part) => part * max),
      (end) => sums.error(coded(low, end)),
    );
    low = best(
      FRACTIONS.map((part) => part * min),
      (end) => sums.error(coded(end, high)),
    );
  }
  return coded(low, high);
}

/** The quantisation whose levels cover a range, which contains zero, so that zero has a level of its own. */
function coded(low: number, high: number): Quantisation {
  const scale = Math.fround(Math.max((high - low) / LEVELS, MIN_SCALE));
  return { scale, zero: Math.min(LEVELS, Math.max(0, Math.round(-low / scale))) };
}

function best(candidates: readonly number[], loss: (candidate: number) => number): number {
  let [chosen, min] = [candidates[0]!, Number.POSITIVE_INFINITY];
  for (const candidate of candidates) {
    const found = loss(candidate);
    if (found < min) [chosen, min] = [candidate, found];
  }
  return chosen;
}

/** Running sums over the bins: the squared error of any range in logarithmic time. */
class Sums {
  readonly #centres: Float64Array;
  /** Sums of the counts, of the values and of their squares before each bin. */
  readonly #sums: readonly [Float64Array, Float64Array, Float64Array];

  constructor(histogram: Histogram) {
    const { centres, counts } = histogram.bins();
    this.#centres = centres;
    const running = (value: (i: number) => number) => {
      const sums = new Float64Array(centres.length + 1);
      for (let i = 0; i < centres.length; i++) sums[i + 1] = sums[i]! + value(i);
      return sums;
    };
    this.#sums = [
      running((i) => counts[i]!),
      running((i) => counts[i]! * centres[i]!),
      running((i) => counts[i]! * centres[i]! ** 2),
    ];
  }

  /** Rounding to one of equal levels has the variance scale^2 / 12; what lies outside moves to the end of the range. */
  error({ scale, zero }: Quantisation): number {
    const [low, high] = [-zero * scale, (LEVELS - zero) * scale];
    const [from, to] = [this.#before(low), this.#before(high)];
    const end = this.#centres.length;
    const [counts] = this.#sums;
    return (
      ((counts[to]! - counts[from]!) * scale ** 2) / 12 +
      this.#distance(0, from, low) +
      this.#distance(to, end, high)
    );
  }

  quantile(share: number): number {
    const [counts] = this.#sums;
    const target = share * counts.at(-1)!;
    const bin = counts.findIndex((count) => count > target) - 1;
    return this.#centres.at(bin < 0 ? -1 : bin) ?? 0;
  }

  /** Sum of squared distances from `point` of the bins [from, to). */
  #distance(from: number, to: number, point: number): number {
    const [count, sum, squares] = this.#sums.map((sums) => sums[to]! - sums[from]!) as [
      number,
      number,
      number,
    ];
    return squares - 2 * point * sum + point ** 2 * count;
  }

  /** Number of bins whose centre is below `value`. */
  #before(value: number): number {
    let [low, high] = [0, this.#centres.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#centres[middle]! < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
