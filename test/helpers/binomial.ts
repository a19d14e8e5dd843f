import { binomialPValue } from 'lib/calibrate/certify/p-values.js';

/** Largest number of events in `n` that still certifies "at most epsilon" at `delta`; -1 when none does. */
export function allowedEvents(n: number, epsilon: number, delta: number): number {
  let k = -1;
  while (k < n && binomialPValue(k + 1, n, epsilon) <= delta) k++;
  return k;
}
