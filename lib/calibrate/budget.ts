/** A budget instead of a limit: the most careful setting that keeps within it is taken, and its risk certified. */
import { ResidualSkipError } from '../errors.js';
import type { Heads } from '../skip/attach.js';
import type { CalibrationOptions } from './calibration.js';
import type { Measured } from './judge.js';
import type { Effort, Stopwatch } from './latency.js';

/** Times that decide, on the items that order the settings. */
const EFFORT: Effort = { items: 100, milliseconds: 1000 };

export interface Budget {
  readonly most: number;
  spent(heads: Heads, measured: Measured): number;
  /** @param least that any setting spent */
  outOfReach(least: number): ResidualSkipError;
}

/** The budget that the options ask for. */
export function budgetOf(
  { budget, budgetMs }: CalibrationOptions,
  stopwatch: Stopwatch,
  inputs: readonly Float32Array[],
): Budget | undefined {
  const outOfReach = (name: string, what: string) => (least: number) => {
    const bold = Number.isFinite(least)
      ? `the boldest one spends ${Number(least.toPrecision(3))}`
      : 'nothing that was fitted skips anything';
    return new ResidualSkipError('INVALID_ARGUMENT', `${name}: no setting keeps within ${what}; ${bold}`);
  };
  if (budget !== undefined) {
    return {
      most: budget,
      spent: (_, { multiplyAddsSkipped }) => 1 - multiplyAddsSkipped,
      outOfReach: outOfReach('budget', `${budget} of the multiply-adds`),
    };
  }
  if (budgetMs === undefined) return undefined;
  return {
    most: budgetMs,
    spent: (heads) => stopwatch.time(heads, inputs, EFFORT).policyMs.p50,
    outOfReach: outOfReach('budgetMs', `a median of ${budgetMs} ms`),
  };
}
