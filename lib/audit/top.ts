/** The `k` most probable classes of a row of logits, best first, as [class, softmax probability]. */
export function softmaxTop(logits: Float32Array, k: number): [number, number][] {
  let peak = Number.NEGATIVE_INFINITY;
  for (const logit of logits) peak = Math.max(peak, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - peak);
  const best: [number, number][] = [];
  for (let index = 0; index < logits.length; index++) {
    const logit = logits[index]!;
    if (best.length === k && !(logit > best[k - 1]![1])) continue;
    let place = best.length;
    while (place > 0 && logit > best[place - 1]![1]) place--;
    best.splice(place, 0, [index, logit]);
    if (best.length > k) best.pop();
  }
  return best.map(([index, logit]) => [index, Number((Math.exp(logit - peak) / sum).toFixed(6))]);
}
