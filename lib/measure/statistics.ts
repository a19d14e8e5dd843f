import { mean, quantile } from '../numeric/statistics.js';

/** Times of single items, in milliseconds. */
export interface LatencySummary {
  /** Arithmetic mean. */
  readonly mean: number;
  /** Median. */
  readonly p50: number;
  /** 95th percentile. */
  readonly p95: number;
}

/** Of a sample that isn't empty. */
export function latencyOf(sample: readonly number[]): LatencySummary {
  return { mean: mean(sample), p50: quantile(sample, 0.5), p95: quantile(sample, 0.95) };
}

/** Change of the accuracy, from the paired differences between items. */
export interface PairedChange {
  /** Second minus first, in percentage points. */
  readonly points: number;
  /** 95 % interval of `points`. */
  readonly ci95: readonly [number, number];
}

/** Standard normal quantile of 0.975. */
const Z95 = 1.959963984540054;

/**
 * Change of accuracy between two classifiers on the same `items`, from the paired differences: `gained` items only
 * the second has right, `lost` only the first. The interval is Agresti and Min's (Statistics in Medicine 24, 2005):
 * Wald's with half an observation added to each of the four cells, which keeps its width honest when few items differ.
 */
export function pairedChange(items: number, gained: number, lost: number): PairedChange {
  const n = items + 2;
  const center = (gained - lost) / n;
  const half = (Z95 * Math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / n)) / n;
  return {
    points: (100 * (gained - lost)) / items,
    ci95: [100 * Math.max(-1, center - half), 100 * Math.min(1, center + half)],
  };
}
