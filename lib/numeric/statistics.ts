/** NaN of an empty sample. */
export function mean(sample: readonly number[] | Float32Array): number {
  let sum = 0;
  for (const value of sample) sum += value;
  return sum / sample.length;
}

/** The q-quantile (0 to 1) of a sample, linear between order statistics; NaN of an empty one. */
export function quantile(sample: ArrayLike<number>, q: number): number {
  if (sample.length === 0) return Number.NaN;
  const sorted = new Float64Array(sample).sort();
  const position = (sorted.length - 1) * q;
  const low = Math.floor(position);
  const high = Math.ceil(position);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (position - low);
}

export function median(sample: ArrayLike<number>): number {
  return quantile(sample, 0.5);
}
