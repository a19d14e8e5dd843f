import type { AttentionView, Operations } from './operations.js';
import { floats, type KernelTensor } from './tensor.js';

/** For each batch, head and query: the softmax of its scores, times the values. Sums are in double precision. */
export function attention(
  q: KernelTensor,
  k: KernelTensor,
  v: KernelTensor,
  mask: KernelTensor | undefined,
  y: KernelTensor,
  attrs: Operations['attention'],
): void {
  const { batch, heads, queries, keys, depth, valueDepth, scale, replaces } = attrs;
  const [from, other, values, to] = [floats(q), floats(k), floats(v), floats(y)];
  const masked = mask && floats(mask);
  const scores = new Float64Array(keys);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const at = (view: AttentionView) => view.offset + b * view.batch + h * view.head;
      const [qAt, kAt, vAt, maskAt, yAt] = [
        at(attrs.q),
        at(attrs.k),
        at(attrs.v),
        at(attrs.mask),
        at(attrs.y),
      ];
      for (let i = 0; i < queries; i++) {
        const qRow = qAt + i * attrs.q.row;
        let max = Number.NEGATIVE_INFINITY;
        for (let j = 0; j < keys; j++) {
          const kRow = kAt + j * attrs.k.row;
          let sum = 0;
          for (let d = 0; d < depth; d++) {
            sum += from[qRow + d * attrs.q.column]! * other[kRow + d * attrs.k.column]!;
          }
          sum *= scale;
          const own = masked?.[maskAt + i * attrs.mask.row + j * attrs.mask.column] ?? 0;
          if (!replaces) sum += own;
          else if (own < 0) sum = own;
          scores[j] = sum;
          max = Math.max(max, sum);
        }
        let total = 0;
        for (let j = 0; j < keys; j++) total += scores[j] = Math.exp(scores[j]! - max);
        const yRow = yAt + i * attrs.y.row;
        for (let d = 0; d < valueDepth; d++) {
          let sum = 0;
          for (let j = 0; j < keys; j++) {
            sum += scores[j]! * values[vAt + j * attrs.v.row + d * attrs.v.column]!;
          }
          to[yRow + d * attrs.y.column] = sum / total;
        }
      }
    }
  }
}
