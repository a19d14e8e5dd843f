/** The nearest integer; the even one of two equally near ones. */
export function roundHalfEven(v: number): number {
  const below = Math.floor(v);
  const rest = v - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The integer from `low` to `high` that stands for a number in steps of `factor` around `zero`; `zero` for NaN. */
export function quantised(v: number, factor: number, zero: number, low: number, high: number): number {
  const steps = roundHalfEven(Math.fround(v / factor));
  return Number.isNaN(steps) ? zero : Math.min(Math.max(steps, low - zero), high - zero) + zero;
}
