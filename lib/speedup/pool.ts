/** What a ladder can be made of, with what was measured on the items that order: answers, scores and times. */
import type { Backend } from '../backends/backend.js';
import { summarise, type Thresholds } from '../calibrate/order/measure.js';
import { exitScoresOf } from '../calibrate/order/settings.js';
import { type Table, tableWith } from '../calibrate/order/table.js';
import type { Costs, ExitScores } from '../calibrate/order/thresholds.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import type { Task } from '../calibrate/task.js';
import { mean, quantile } from '../numeric/statistics.js';
import type { AnyExit } from '../skip/exits.js';
import { NEVER } from '../skip/scores.js';
import type { TensorData } from '../tensor/tensor.js';

/** Times of an exit, as fractions of the time of the network in float with every block run. */
export interface ExitTime {
  /** Index of its network: fronts in their order, then the network itself. */
  readonly network: number;
  /** From the beginning of its network to the exit, without heads. */
  readonly reach: number;
  /** Of its head. */
  readonly head: number;
}

/** An exit can be used without those before it, unless it has a head of the policy, which reads theirs. */
const isChained = ({ head }: AnyExit) => head !== undefined;

/** What rows spend, in time. */
export class TimeCosts implements Costs {
  /**
   * @param own index of the network itself
   * @param whole its time without exits
   */
  constructor(
    private readonly exits: readonly ExitTime[],
    private readonly own: number,
    private readonly whole: number,
  ) {}

  passing(exit: number, thresholds: readonly number[]): number {
    const { network, reach, head } = this.exits[exit]!;
    // The network itself runs on anyway, and so does a front to its last exit in use.
    return network === this.own ? head : head + Math.max(0, reach - this.#reached(network, thresholds, exit));
  }

  leaving(exit: number, thresholds: readonly number[]): number {
    const unused = exit < this.exits.length && thresholds[exit]! >= NEVER;
    return this.#total(exit, thresholds) - (unused ? this.passing(exit, thresholds) : 0);
  }

  #total(exit: number, thresholds: readonly number[]): number {
    const { network, reach, head } = this.exits[exit] ?? { network: this.own, reach: this.whole, head: 0 };
    let sum = reach + head;
    for (let e = 0; e < exit; e++) if (thresholds[e]! < NEVER) sum += this.exits[e]!.head;
    for (let front = 0; front < network; front++) sum += this.#reached(front, thresholds);
    return sum;
  }

  /** How far rows that pass a network run in it. */
  #reached(network: number, thresholds: readonly number[], except?: number): number {
    let reached = 0;
    for (const [e, exit] of this.exits.entries()) {
      if (e !== except && exit.network === network && thresholds[e]! < NEVER)
        reached = Math.max(reached, exit.reach);
    }
    return reached;
  }
}

/** Effort of timing one exit. All items take the same path, so that few are enough; on a busy machine, several rounds are needed. */
const EFFORT: Effort = { items: 20, milliseconds: 100, rounds: 4 };

/**
 * The time of each exit: measured by runs that all leave there, in alternation with the full network.
 * @param chains the exits of each front, the last one at its end; then those of the network
 */
export function timesOf(
  backend: Backend,
  { programs, original }: Task,
  chains: readonly (readonly AnyExit[])[],
  inputs: readonly TensorData[],
): { readonly times: readonly ExitTime[]; readonly whole: number } {
  const stopwatch = new Stopwatch(backend, programs, [], original);
  /** Of runs that evaluate all these exits, and leave at the last one if the threshold lets them. */
  const time = (list: readonly AnyExit[], last: number): number => {
    const specs = list.map((exit, e) => ({ ...exit, threshold: e === list.length - 1 ? last : NEVER }));
    const { fullMs, policyMs } = stopwatch.time(specs, inputs, EFFORT);
    return policyMs.p50 / fullMs.p50;
  };
  const inNetwork = (
    network: number,
    exits: readonly AnyExit[],
    alone: number,
    all: () => number,
  ): ExitTime[] => {
    if (exits.length === 0) return [];
    const head = Math.max(0, all() - alone) / exits.length;
    const reach = exits.map((_, e) => time(exits.slice(0, e + 1), 0) - head * (e + 1));
    return reach.map((each) => ({ network, reach: Math.min(Math.max(0, each), alone), head }));
  };
  try {
    const whole = original ? time([], NEVER) : 1;
    const times = chains.flatMap((exits, network) => {
      if (network === chains.length - 1) return inNetwork(network, exits, whole, () => time(exits, NEVER));
      const end = exits.at(-1)!;
      const alone = time([end], 0);
      return [
        ...inNetwork(network, exits.slice(0, -1), alone, () => time(exits, 0)),
        { network, reach: alone, head: 0 },
      ];
    });
    return { times, whole };
  } finally {
    stopwatch.release();
  }
}

/** What thresholds do to items: mean loss, and times as fractions of the full network's mean. */
export interface Prediction {
  readonly risk: number;
  /** Part of the items that have a loss, or a right answer that the full network hasn't. */
  readonly changed: number;
  readonly mean: number;
  readonly p95: number;
}

/** The loss and the time of each item. */
export interface Effects {
  readonly losses: readonly number[];
  readonly times: readonly number[];
}

export const predictionOf = ({ losses, times }: Effects): Prediction => ({
  risk: mean(losses),
  changed: mean(losses.map((loss) => Number(loss !== 0))),
  mean: mean(times),
  p95: quantile(times, 0.95),
});

/** A network with every exit that could be before it or in it. */
export class Pool {
  readonly costs: Costs;

  /**
   * @param exits those of the fronts first
   * @param tables of items that they were not fitted on, with a column for each exit
   * @param own index of the network itself in `times`
   */
  constructor(
    readonly name: string,
    readonly task: Task,
    readonly exits: readonly AnyExit[],
    readonly tables: readonly Table[],
    readonly times: readonly ExitTime[],
    readonly own: number,
    readonly whole: number,
  ) {
    this.costs = new TimeCosts(times, own, whole);
  }

  /**
   * The same with some of the fronts, in the order given.
   * @param exits whether the network keeps its exits
   * @param inside whether fronts keep those before their end
   */
  only(fronts: readonly number[], exits: boolean, inside = true): Pool {
    const columns = [...fronts, ...(exits ? [this.own] : [])].flatMap((network) => {
      const all = this.times.flatMap((time, column) => (time.network === network ? [column] : []));
      return inside || network === this.own ? all : all.slice(-1);
    });
    const pick = <T>(list: readonly T[]) => columns.map((column) => list[column]!);
    const tables = this.tables.map((table) => ({ ...table, exits: pick(table.exits) }));
    const times = pick(this.times).map((time) => ({
      ...time,
      network: time.network === this.own ? fronts.length : fronts.indexOf(time.network),
    }));
    return new Pool(this.name, this.task, pick(this.exits), tables, times, fronts.length, this.whole);
  }

  /** The same with half of the items: those of even places, or of odd ones. */
  half(odd: 0 | 1): Pool {
    let place = 0;
    const tables = this.tables.map((table) => {
      const first = place;
      place += table.items.length;
      return tableWith(
        table,
        [...table.items.keys()].filter((row) => (first + row) % 2 === odd),
      );
    });
    return new Pool(this.name, this.task, this.exits, tables, this.times, this.own, this.whole);
  }

  /** For the search of thresholds; what is saved is counted by `costs`. */
  scores(): ExitScores[] {
    return exitScoresOf(
      this.tables,
      this.exits.map(() => 0),
      { metric: this.task.options.metric },
    );
  }

  /** Times of items that leave at each exit, and then at the end. */
  spent(thresholds: Thresholds): number[] {
    const last = thresholds.findLastIndex((threshold) => threshold < NEVER);
    // Heads in front of the last exit are evaluated even where nothing leaves.
    const evaluated = thresholds.map((threshold, e) =>
      e <= last && isChained(this.exits[e]!) ? Math.min(threshold, 1) : threshold,
    );
    return [...this.exits.keys(), this.exits.length].map((e) => this.costs.leaving(e, evaluated));
  }

  /** Multiply-adds that items spend, as a fraction of the network's. */
  work(thresholds: Thresholds): number {
    const items = this.tables.map((table) => table.items.length);
    const spent = this.tables.map((table) => 1 - summarise(table, thresholds).multiplyAddsSkipped);
    return spent.reduce((sum, one, t) => sum + one * items[t]!, 0) / items.reduce((a, b) => a + b, 0);
  }

  predict(thresholds: Thresholds): Prediction {
    return predictionOf(this.effects(thresholds));
  }

  effects(thresholds: Thresholds): Effects {
    const rounded = thresholds.map(Math.fround);
    const spent = this.spent(rounded);
    const [losses, times]: [number[], number[]] = [[], []];
    for (const { items, exits, end } of this.tables) {
      for (let i = 0; i < items.length; i++) {
        let taken = 0;
        while (taken < exits.length && !(exits[taken]!.confidences[i]! >= rounded[taken]!)) taken++;
        times.push(spent[taken]!);
        losses.push((exits[taken] ?? end).losses[i]!);
      }
    }
    return { losses, times };
  }
}
