import type { SkipPolicy } from '../../lib/skip/policy.js';

/** A calibrated policy without the times, which are measured anew by every calibration. */
export function untimed({ expected, ...rest }: SkipPolicy) {
  const { latency: _, latencyReduction: __, ...known } = expected!;
  return { ...rest, expected: known };
}

/** A policy that promises `limit`, whatever it does. */
export function promising(limit: number, rest: object) {
  const tested = { limit, items: 3000, events: 0, risk: 0, pValue: 0.01, upperBound: limit };
  const data = { sha256: 'a'.repeat(64), seed: 1, fit: 1000, order: 1000, certify: 1000 };
  return { version: 1, ...rest, promise: { metric: 'disagreement', confidence: 0.95, ...tested, data } };
}
