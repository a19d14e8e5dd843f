/** What a ladder can be made of, with what was measured on the items that order: answers, scores and times. */
import { summarise, type Thresholds } from '../calibrate/order/measure.js';
import { exitScoresOf } from '../calibrate/order/settings.js';
import { type Table, tableWith } from '../calibrate/order/table.js';
import type { Costs, ExitScores } from '../calibrate/order/thresholds.js';
import type { Task } from '../calibrate/task.js';
import type { AnyExit } from '../skip/exits.js';
import { NEVER } from '../skip/scores.js';
import { type ExitTime, TimeCosts } from './times.js';

/** An exit can be used without those before it, unless it has a head of the policy, which reads theirs. */
const isChained = ({ head }: AnyExit) => head !== undefined;

/** What thresholds do to items: mean loss, and times as fractions of the full network's mean. */
export interface Prediction {
  readonly risk: number;
  /** Part of the items that have a loss, or a right answer that the full network hasn't. */
  readonly changed: number;
  readonly mean: number;
  readonly p95: number;
}

/** What items do under some thresholds. */
export interface Tally {
  /** Times of items that leave at each exit, and then at the end; and how many do. */
  readonly spent: readonly number[];
  readonly counts: ArrayLike<number>;
  readonly items: number;
  /** Sum of the losses, and the number of items that have one. */
  readonly lost: number;
  readonly changed: number;
}

/** Of all items of several tallies. */
export function predictionOf(tallies: readonly Tally[]): Prediction {
  const sum = (of: (tally: Tally) => number) => tallies.reduce((total, tally) => total + of(tally), 0);
  const items = sum((tally) => tally.items);
  const groups = tallies.flatMap(({ spent, counts }) =>
    spent.map((time, e) => ({ time, count: counts[e]! })),
  );
  return {
    risk: sum(({ lost }) => lost) / items,
    changed: sum(({ changed }) => changed) / items,
    mean: groups.reduce((total, { time, count }) => total + time * count, 0) / items,
    p95: quantileOf(groups, 0.95),
  };
}

/** As `quantile`, of times that many items have. */
function quantileOf(groups: readonly { readonly time: number; readonly count: number }[], q: number): number {
  const sorted = groups.filter(({ count }) => count > 0).sort((a, b) => a.time - b.time);
  const position = (sorted.reduce((sum, { count }) => sum + count, 0) - 1) * q;
  const at = (rank: number) => {
    let [group, before] = [0, sorted[0]!.count];
    while (before <= rank) before += sorted[++group]!.count;
    return sorted[group]!.time;
  };
  const low = at(Math.floor(position));
  return low + (at(Math.ceil(position)) - low) * (position % 1);
}

/** What the tables hold, joined over all of their items. */
interface Evidence {
  readonly confidences: readonly Float32Array[];
  /** Of each exit, and then of the end. */
  readonly losses: readonly Float64Array[];
}

/** The pool that another one was taken from, and which of its exits and fronts that one has. */
interface Origin {
  readonly pool: Pool;
  readonly columns: readonly number[];
  readonly fronts: readonly number[];
}

/** A network with every exit that could be before it or in it. */
export class Pool {
  readonly costs: Costs;
  #evidence: Evidence | undefined;
  readonly #halves: (Pool | undefined)[] = [];

  /**
   * @param exits those of the fronts first
   * @param tables of items that they were not fitted on, with a column for each exit
   * @param own index of the network itself in `times`
   * @param forms names of fronts that are the network itself in another precision: what their confidence says is learnt of each by itself,
   * since they change far fewer answers than other exits that are as sure
   * @param origin where it was taken from, if it was: what was read of the tables is shared
   */
  constructor(
    readonly name: string,
    readonly task: Task,
    readonly exits: readonly AnyExit[],
    readonly tables: readonly Table[],
    readonly times: readonly ExitTime[],
    readonly own: number,
    readonly whole: number,
    private readonly forms: ReadonlySet<string> = new Set(),
    private readonly origin?: Origin,
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
    return this.#pick({ pool: this, columns, fronts });
  }

  #pick(origin: Origin): Pool {
    const { columns, fronts } = origin;
    const tables = this.tables.map((table) => ({ ...table, exits: at(table.exits, columns) }));
    const times = at(this.times, columns).map((time) => ({
      ...time,
      network: time.network === this.own ? fronts.length : fronts.indexOf(time.network),
    }));
    const exits = at(this.exits, columns);
    return new Pool(
      this.name,
      this.task,
      exits,
      tables,
      times,
      fronts.length,
      this.whole,
      this.forms,
      origin,
    );
  }

  /** Indices of its fronts in the pool that it was taken from. */
  get fronts(): readonly number[] {
    return this.origin?.fronts ?? [...Array(this.own).keys()];
  }

  /** The same with half of the items: those of even places, or of odd ones. */
  half(odd: 0 | 1): Pool {
    this.#halves[odd] ??= this.#half(odd);
    return this.#halves[odd];
  }

  #half(odd: 0 | 1): Pool {
    if (this.origin) {
      const pool = this.origin.pool.half(odd);
      return pool.#pick({ ...this.origin, pool });
    }
    let place = 0;
    const tables = this.tables.map((table) => {
      const first = place;
      place += table.items.length;
      return tableWith(
        table,
        [...table.items.keys()].filter((row) => (first + row) % 2 === odd),
      );
    });
    return new Pool(this.name, this.task, this.exits, tables, this.times, this.own, this.whole, this.forms);
  }

  /** For the search of thresholds; what is saved is counted by `costs`. */
  scores(): ExitScores[] {
    const columns = [...this.exits.keys()];
    const isForm = (column: number) => this.forms.has(this.exits[column]!.after);
    const alike = [
      columns.filter((column) => !isForm(column)),
      ...columns.filter(isForm).map((form) => [form]),
    ];
    const scores: ExitScores[] = [];
    for (const group of alike) {
      const tables = this.tables.map((table) => ({ ...table, exits: at(table.exits, group) }));
      const savings = group.map(() => 0);
      const found = exitScoresOf(tables, savings, { metric: this.task.options.metric });
      for (const [i, column] of group.entries()) scores[column] = found[i]!;
    }
    return scores;
  }

  /** Read once, also for pools with some of the exits. */
  #read(): Evidence {
    this.#evidence ??= this.origin ? this.#pickRead(this.origin) : this.#readTables();
    return this.#evidence;
  }

  #pickRead({ pool, columns }: Origin): Evidence {
    const { confidences, losses } = pool.#read();
    return { confidences: at(confidences, columns), losses: [...at(losses, columns), losses.at(-1)!] };
  }

  #readTables(): Evidence {
    const { tables, exits } = this;
    return {
      confidences: exits.map((_, e) =>
        Float32Array.from(tables.flatMap((table) => [...table.exits[e]!.confidences])),
      ),
      losses: [...exits, null].map((_, e) =>
        Float64Array.from(tables.flatMap((table) => [...(table.exits[e] ?? table.end).losses])),
      ),
    };
  }

  /** Times of items that leave at each exit, and then at the end. */
  spent(thresholds: Thresholds): readonly number[] {
    const last = thresholds.findLastIndex((threshold) => threshold < NEVER);
    // Heads in front of the last exit are evaluated even where nothing leaves.
    const evaluated = thresholds.map((threshold, e) =>
      e <= last && isChained(this.exits[e]!) ? Math.min(threshold, 1) : threshold,
    );
    return this.costs.leaving(evaluated);
  }

  /** Multiply-adds that items spend, as a fraction of the network's. */
  work(thresholds: Thresholds): number {
    const items = this.tables.map((table) => table.items.length);
    const spent = this.tables.map((table) => 1 - summarise(table, thresholds).multiplyAddsSkipped);
    return spent.reduce((sum, one, t) => sum + one * items[t]!, 0) / items.reduce((a, b) => a + b, 0);
  }

  predict(thresholds: Thresholds): Prediction {
    return predictionOf([this.tally(thresholds)]);
  }

  tally(thresholds: Thresholds): Tally {
    const { confidences, losses } = this.#read();
    const rounded = thresholds.map(Math.fround);
    const end = this.exits.length;
    const items = losses[end]!.length;
    const taken = new Uint16Array(items).fill(end);
    for (let e = end - 1; e >= 0; e--) {
      const [threshold, own] = [rounded[e]!, confidences[e]!];
      if (threshold >= NEVER) continue;
      for (let i = 0; i < items; i++) if (own[i]! >= threshold) taken[i] = e;
    }
    const counts = new Uint32Array(end + 1);
    let [lost, changed] = [0, 0];
    for (let i = 0; i < items; i++) {
      const exit = taken[i]!;
      const loss = losses[exit]![i]!;
      counts[exit]!++;
      lost += loss;
      if (loss !== 0) changed++;
    }
    return { spent: this.spent(rounded), counts, items, lost, changed };
  }
}

const at = <T>(list: readonly T[], columns: readonly number[]) => columns.map((column) => list[column]!);
