/** A budget instead of a limit: the most careful setting within it is taken, and its risk certified. */
import { ResidualSkipError } from '../errors.js';
import type { Effort, Stopwatch } from './latency.js';
import { exitsOf, type Thresholds } from './measure.js';
import type { CalibrationOptions } from './options.js';
import type { Table } from './table.js';

/** Effort of the timings that decide, on the items that order the settings. */
const EFFORT: Effort = { items: 100, milliseconds: 500 };

export interface Budget {
  readonly most: number;
  spent(thresholds: Thresholds, multiplyAddsSkipped: number): number;
  /** @param least the least that any setting spent */
  outOfReach(least: number): ResidualSkipError;
}

/**
 * The budget that the options request.
 * @param order items that order settings, evaluated with heads that were fitted without them
 */
export function budgetOf(
  { budget, budgetMs }: CalibrationOptions,
  stopwatch: Stopwatch,
  order: Table,
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
      spent: (_, multiplyAddsSkipped) => 1 - multiplyAddsSkipped,
      outOfReach: outOfReach('budget', `${budget} of the multiply-adds`),
    };
  }
  if (budgetMs === undefined) return undefined;
  const inputs = order.items.map(({ input }) => input);
  return {
    most: budgetMs,
    spent: (thresholds) => stopwatch.time(exitsOf(order, thresholds), inputs, EFFORT).policyMs.p50,
    outOfReach: outOfReach('budgetMs', `a median of ${budgetMs} ms`),
  };
}
