/** What a ladder can be made of, with what was measured on the items that order: answers, scores and times. */
import type { Backend } from '../backends/backend.js';
import type { Thresholds } from '../calibrate/order/measure.js';
import { exitScoresOf } from '../calibrate/order/settings.js';
import { NEVER, type Table } from '../calibrate/order/table.js';
import type { ExitScores } from '../calibrate/order/thresholds.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import type { Task } from '../calibrate/task.js';
import { quantile } from '../numeric/statistics.js';
import type { AnyExit } from '../skip/attach.js';
import type { TensorData } from '../tensor/tensor.js';

/** Times are fractions of the mean time of the network in float with every block run. */
export interface Times {
  /** Of each exit: what is behind it, and what evaluating it takes. */
  readonly saving: readonly number[];
  readonly cost: readonly number[];
  /** Of the network without exits. */
  readonly whole: number;
}

/** Effort of timing one exit. All items take the same path, so that few are enough. */
const EFFORT: Effort = { items: 60, milliseconds: 400 };

/** The time of each exit: measured by runs that all leave there, in alternation with the full network. */
export function timesOf(
  backend: Backend,
  { programs, original }: Task,
  fronts: readonly AnyExit[],
  exits: readonly AnyExit[],
  inputs: readonly TensorData[],
): Times {
  const stopwatch = new Stopwatch(backend, programs, [], original);
  try {
    const leaving = (list: readonly AnyExit[], last: number): number => {
      const specs = list.map((exit, e) => ({ ...exit, threshold: e === list.length - 1 ? last : NEVER }));
      const { fullMs, policyMs } = stopwatch.time(specs, inputs, EFFORT);
      return policyMs.p50 / fullMs.p50;
    };
    const whole = original ? leaving([], NEVER) : 1;
    const frontCosts = fronts.map((front) => leaving([front], 0));
    const head = exits.length === 0 ? 0 : Math.max(0, leaving(exits, NEVER) - whole) / exits.length;
    const savings = exits.map((_, e) => whole - (leaving(exits.slice(0, e + 1), 0) - head * (e + 1)));
    return {
      whole,
      saving: [...fronts.map(() => whole), ...savings],
      cost: [...frontCosts, ...exits.map(() => head)],
    };
  } finally {
    stopwatch.release();
  }
}

/** A network with every exit that could be before it or in it. */
export class Pool {
  /** With the model's own threshold order: fronts first. */
  readonly exits: readonly AnyExit[];

  /**
   * @param tables of items that the exits were not fitted on, with a column for each exit
   * @param fronts how many of the exits are fronts
   */
  constructor(
    readonly name: string,
    readonly task: Task,
    readonly tables: readonly Table[],
    readonly times: Times,
    readonly fronts: number,
  ) {
    this.exits = tables[0]!.exits.map(({ exit }) => exit);
  }

  /** The same with some of the exits alone, by index. */
  only(columns: readonly number[]): Pool {
    const pick = <T>(list: readonly T[]) => columns.map((c) => list[c]!);
    const tables = this.tables.map((table) => ({ ...table, exits: pick(table.exits) }));
    const { whole, saving, cost } = this.times;
    const times = { whole, saving: pick(saving), cost: pick(cost) };
    return new Pool(this.name, this.task, tables, times, columns.filter((c) => c < this.fronts).length);
  }

  /** For the search of thresholds, in units of time. */
  scores(): ExitScores[] {
    const { saving, cost } = this.times;
    return exitScoresOf(this.tables, saving).map((scores, e) => ({ ...scores, cost: cost[e]! }));
  }

  /** The predicted time of each item, and the mean loss. */
  predict(thresholds: Thresholds): { readonly risk: number; readonly mean: number; readonly p95: number } {
    const { whole, saving, cost } = this.times;
    const rounded = thresholds.map(Math.fround);
    const times: number[] = [];
    let loss = 0;
    const last = rounded.findLastIndex((threshold) => threshold < NEVER);
    const evaluated = rounded.map(
      (threshold, e) => e <= last && (threshold < NEVER || this.exits[e]!.head !== undefined),
    );
    for (const { items, exits, end } of this.tables) {
      for (let i = 0; i < items.length; i++) {
        const taken = exits.findIndex(({ confidences }, e) => confidences[i]! >= rounded[e]!);
        let time = taken < 0 ? whole : whole - saving[taken]!;
        for (let e = 0; e <= (taken < 0 ? last : taken); e++) if (evaluated[e]) time += cost[e]!;
        times.push(time);
        loss += (taken < 0 ? end : exits[taken]!).losses[i]!;
      }
    }
    const mean = times.reduce((a, b) => a + b, 0) / times.length;
    return { risk: loss / times.length, mean, p95: quantile(times, 0.95) };
  }
}
