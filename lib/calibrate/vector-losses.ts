/** How far vectors are from those of the full network: losses of the metrics of networks without classes. */
import { cosineDistance, relativeError } from '../numeric/vectors.js';
import { mostLoss, type VectorMetric } from '../skip/promise.js';

/** Vectors of the same items, in full and with blocks left out. */
export interface Pairs {
  readonly full: readonly Float32Array[];
  readonly skipping: readonly Float32Array[];
}

/**
 * The loss of each item, in [0, mostLoss(metric)]; NaN among its numbers counts as the most.
 * @param rest where neighbours are looked for; when left out, among the other items
 */
export function lossesOf(metric: VectorMetric, items: Pairs, rest?: Pairs): number[] {
  const most = mostLoss(metric);
  const bounded = (loss: number) => (Number.isNaN(loss) ? most : Math.min(loss, most));
  const each = (distance: (a: Float32Array, b: Float32Array) => number) =>
    items.full.map((vector, i) => bounded(distance(items.skipping[i]!, vector)));
  if (metric === 'cosine') return each(cosineDistance);
  if (metric === 'relative') return each(relativeError);
  const count = Number(metric.slice('recall@'.length));
  const [full, skipping] = [items.full, items.skipping].map((vectors) => vectors.map(unit));
  const among = rest ? [rest.full, rest.skipping].map((vectors) => vectors.map(unit)) : [full!, skipping!];
  return full!.map((vector, i) => {
    const own = rest ? -1 : i;
    const before = nearest(vector, among[0]!, count, own);
    const after = new Set(nearest(skipping![i]!, among[1]!, count, own));
    return 1 - before.filter((index) => after.has(index)).length / count;
  });
}

/** Scaled to the length 1; a vector of zeros stays. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return length > 0 ? vector.map((x) => x / length) : vector;
}

/** Indices of the `count` vectors with the largest cosine to `vector`, without `own`; of equal ones, the lower index. */
function nearest(vector: Float32Array, among: readonly Float32Array[], count: number, own: number): number[] {
  const cosines = among.map((other) => other.reduce((sum, x, c) => sum + x * vector[c]!, 0));
  // NaN is no neighbour.
  const indices = [...among.keys()].filter((i) => i !== own && !Number.isNaN(cosines[i]!));
  return indices.sort((a, b) => cosines[b]! - cosines[a]! || a - b).slice(0, count);
}
