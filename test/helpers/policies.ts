import { loadPolicy } from 'lib/skip/load-policy.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import type { Promised } from 'lib/skip/promise.js';

/** A calibrated policy without times, which differ between calibrations. */
export function untimed({ expected, ...rest }: SkipPolicy) {
  const { latency: _, latencyReduction: __, ...known } = expected!;
  return { ...rest, expected: known };
}

/** A policy that promises `limit`, regardless of its rules. */
export function promising(limit: number, rest: object): SkipPolicy & { readonly promise: Promised } {
  const tested = { limit, items: 3000, events: 0, risk: 0, pValue: 0.01, upperBound: limit };
  const data = { sha256: 'a'.repeat(64), seed: 1, fit: 1000, order: 1000, certify: 1000 };
  return { version: 1, ...rest, promise: { metric: 'disagreement', confidence: 0.95, ...tested, data } };
}

/** That a calibrated policy, and each of its settings, names what its promise is about, and keeps the promise when its file is read. */
export function expectSealed(policy: SkipPolicy): void {
  for (const { promise } of [policy, ...(policy.settings ?? [])])
    expect(promise!.settings).toMatch(/^[0-9a-f]{64}$/);
  const file = JSON.stringify(policy);
  expect(loadPolicy(JSON.parse(file))).toEqual(JSON.parse(file));
}
