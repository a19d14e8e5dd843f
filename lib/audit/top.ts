/** The `k` most probable classes of a row of logits, best first, as [class, softmax probability]. */
export function softmaxTop(logits: Float32Array, k: number): [number, number][] {
  let peak = Number.NEGATIVE_INFINITY;
  for (const logit of logits) peak = Math.max(peak, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - peak);
  const best: number[] = [];
  for (let index = 0; index < logits.length; index++) {
    const logit = logits[index]!;
    if (best.length === k && !(logit > logits[best[k - 1]!]!)) continue;
    let place = Math.min(best.length, k - 1);
    for (; place > 0 && logit > logits[best[place - 1]!]!; place--) best[place] = best[place - 1]!;
    best[place] = index;
  }
  return best.map((index) => [index, Math.exp(logits[index]! - peak) / sum]);
}
