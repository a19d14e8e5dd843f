/** Distances between vectors. */

/** 1 - cos of the angle between `a` and `b`, 0 to 2; 1 where only one of them is zero, 0 where both are. NaN stays NaN. */
export function cosineDistance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  if (aa === 0 || bb === 0) return aa === bb ? 0 : 1 + 0 * (aa + bb);
  const distance = 1 - dot / Math.sqrt(aa * bb);
  return Number.isNaN(distance) ? distance : Math.min(2, Math.max(0, distance));
}

/** |a - b| / |b| by the Euclidean norm: the error of `a` relative to `b`. Infinite where only `b` is zero, 0 where both are. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / size);
}
