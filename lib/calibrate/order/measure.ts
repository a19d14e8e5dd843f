/** Computes what thresholds do with the items of a table, including guards, without running the items. */
import { mean } from '../../numeric/statistics.js';
import { type AnyExit, costsOfExits, type ExitSpec, placeOf, workBeyond } from '../../skip/exits.js';
import { distributionOf, type ScoreDistributions } from '../../skip/score-distribution.js';
import { NEVER } from '../../skip/scores.js';
import type { Table } from './table.js';

/** The effect of a setting on each item. */
interface ByItem {
  /** By the first metric that is promised, and by each further one. */
  readonly losses: readonly number[];
  readonly further: readonly (readonly number[])[];
  /** Fraction of the network's multiply-adds; negative if a guard made the item run twice. */
  readonly saved: readonly number[];
  readonly answers: readonly number[];
  /** The exit that answered; null for the network. */
  readonly left: readonly (string | null)[];
  /** A digit for each block: 1 ran, 0 skipped; all 1 if a guard made the item run in full. */
  readonly ran: readonly string[];
}

export interface Measured {
  readonly byItem: ByItem;
  /** Mean of the losses of the table's columns. */
  readonly risk: number;
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** By the exit's block: the fractions of items that left at the exit and that reached it. */
  readonly exits: Readonly<Record<string, number>>;
  readonly reached: Readonly<Record<string, number>>;
  /** Of the network's own gates that were evaluated, and of the exits that items reached. */
  readonly distributions: { readonly gate: ScoreDistributions; readonly exit: ScoreDistributions };
}

/** The threshold of each exit; NEVER if the exit is only passed. */
export type Thresholds = readonly number[];

/** The exits of a policy, of all that there could be. */
export function exitsOf(exits: readonly AnyExit[], thresholds: Thresholds): ExitSpec[] {
  return evaluatedOf(exits, thresholds).map((e) => ({ ...exits[e]!, threshold: thresholds[e]! }));
}

/** Whether the next exit reads a fitted one; heads with scores stand alone. */
const isRead = ({ head }: AnyExit) => head !== undefined && head.score === undefined;

/** Indices of the exits that are evaluated: those that are taken, and fitted ones of classes in front of them, which they read. */
function evaluatedOf(exits: readonly AnyExit[], thresholds: Thresholds): number[] {
  const last = thresholds.findLastIndex((threshold) => threshold < NEVER);
  return [...exits.keys()].filter((e) => e <= last && (thresholds[e]! < NEVER || isRead(exits[e]!)));
}

/** Sums over the items, without the data of single items; `multiplyAddsSkipped` is negative where heads cost more than is saved. */
export function summarise(
  table: Table,
  thresholds: Thresholds,
): { risk: number; multiplyAddsSkipped: number } {
  const path = new Paths(table, thresholds);
  let [risk, saved] = [0, 0];
  for (let i = 0; i < table.items.length; i++) {
    const taken = path.takenBy(i);
    risk += path.columnOf(taken).losses[i]!;
    saved += path.saved(i, taken);
  }
  const items = table.items.length;
  return { risk: risk / items, multiplyAddsSkipped: saved / items };
}

/** The effect of thresholds on the items of a table. */
export function measure(table: Table, thresholds: Thresholds): Measured {
  const { items, program, answers, exits } = table;
  const path = new Paths(table, thresholds);
  const taken = items.map((_, i) => path.takenBy(i));
  const columns = taken.map((exit) => path.columnOf(exit));
  const guarded = columns.map((column, i) => column.guarded[i] === 1);
  const blocks = program.blocks.length;
  const ran = items.map((_, i) => {
    const behind = path.behind(taken[i]!);
    return Array.from({ length: blocks }, (_, b) =>
      guarded[i] || (b < behind && table.ran[i * blocks + b] === 1) ? 1 : 0,
    );
  });
  const worst = columns.map((column, i) => column.losses[i]!);
  const [losses = worst, ...further] = table.end.byMetric.map((_, m) =>
    columns.map((column, i) => column.byMetric[m]![i]!),
  );
  const saved = items.map((_, i) => path.saved(i, taken[i]!));
  return {
    byItem: {
      losses,
      further,
      saved,
      answers: columns.map((column, i) => (guarded[i] ? answers[i]! : column.answers[i]!)),
      left: taken.map((exit, i) => (guarded[i] ? null : (exits[exit]?.exit.after ?? null))),
      ran: ran.map((row) => row.join('')),
    },
    risk: mean(worst),
    multiplyAddsSkipped: Math.max(0, mean(saved)),
    blocksSkipped: mean(ran.map((row) => row.filter((digit) => digit === 0).length / Math.max(1, blocks))),
    ...measureExits(table, path, thresholds, taken, guarded),
  };
}

/** The answer that each item gets: its vector. */
export function vectorsOf(table: Table, thresholds: Thresholds): Float32Array[] {
  const path = new Paths(table, thresholds);
  return table.items.map((_, i) => path.columnOf(path.takenBy(i)).vectors[i]!);
}

/** How many items reach and leave each exit, with which confidences; and the scores of gates in front of it. */
function measureExits(
  { items, exits, program, ran, scores }: Table,
  path: Paths,
  thresholds: Thresholds,
  taken: readonly number[],
  guarded: readonly boolean[],
): Pick<Measured, 'exits' | 'reached' | 'distributions'> {
  const all = [...items.keys()];
  const blocks = program.blocks.length;
  const evaluated = evaluatedOf(
    exits.map(({ exit }) => exit),
    thresholds,
  );
  const atExits = evaluated.map((e) => {
    const those = all.filter((i) => taken[i]! < 0 || taken[i]! >= e);
    return {
      ...{ name: exits[e]!.exit.after, those, scores: those.map((i) => exits[e]!.confidences[i]!) },
      skipping: those.filter((i) => taken[i] === e && !guarded[i]),
    };
  });
  const atGates = program.blocks.map(({ name }, b) => {
    const at = (i: number) => i * blocks + b;
    const those = all.filter((i) => b < path.behind(taken[i]!) && !Number.isNaN(scores[at(i)]!));
    return {
      ...{ name, those, scores: those.map((i) => scores[at(i)]!) },
      skipping: those.filter((i) => !guarded[i] && ran[at(i)] === 0),
    };
  });
  const shares = (of: 'those' | 'skipping') =>
    Object.fromEntries(atExits.map((exit) => [exit.name, exit[of].length / items.length]));
  const distributions = (some: typeof atExits) =>
    Object.fromEntries(
      some
        .filter(({ those }) => those.length > 0)
        .map((one) => [one.name, distributionOf(one.scores, one.skipping.length / one.those.length)]),
    );
  return {
    exits: shares('skipping'),
    reached: shares('those'),
    distributions: { exit: distributions(atExits), gate: distributions(atGates) },
  };
}

/** The exit that each item takes, and the saving. */
class Paths {
  /** Rounded to float32, as the engine compares. */
  readonly #thresholds: Float32Array;
  /** Number of blocks before each exit; then the number of all blocks. */
  readonly #behind: readonly number[];
  /** Multiply-adds behind each exit that belong to no block. */
  readonly #beyond: readonly number[];
  /** Multiply-adds of the heads evaluated by an item that leaves at each exit; then at the end. */
  readonly #headWork: readonly number[];

  constructor(
    private readonly table: Table,
    thresholds: Thresholds,
  ) {
    const { program, exits } = table;
    this.#thresholds = Float32Array.from(thresholds);
    const after = exits.map(({ exit }) => program.blocks.findIndex(({ name }) => name === exit.after));
    this.#beyond = exits.map(({ exit }) => workBeyond(program, placeOf(program, exit)));
    this.#behind = [...after.map((block) => block + 1), program.blocks.length];
    const specs = exits.map(({ exit }) => exit);
    const evaluated = evaluatedOf(specs, thresholds);
    const costs = costsOfExits(
      program,
      evaluated.map((e) => specs[e]!),
    );
    let spent = 0;
    const headWork = exits.map((_, e) => {
      spent += costs[evaluated.indexOf(e)] ?? 0;
      return spent;
    });
    this.#headWork = [...headWork, spent];
  }

  /** The exit that an item takes; -1 for none. */
  takenBy(item: number): number {
    return this.table.exits.findIndex(({ confidences }, e) => confidences[item]! >= this.#thresholds[e]!);
  }

  columnOf(taken: number) {
    return taken < 0 ? this.table.end : this.table.exits[taken]!;
  }

  /** Number of blocks before the exit that was taken. */
  behind(taken: number): number {
    return this.#behind.at(taken)!;
  }

  /** Share of the network's multiply-adds. */
  saved(item: number, taken: number): number {
    const { program, shaped, ran } = this.table;
    const { blocks, cost } = shaped?.[item] ?? program;
    const behind = this.behind(taken);
    let sum = (taken < 0 ? 0 : this.#beyond[taken]!) - this.#headWork.at(taken)!;
    for (let b = 0; b < blocks.length; b++) {
      if (b >= behind || ran[item * blocks.length + b] === 0) sum += blocks[b]!.cost.multiplyAdds;
    }
    // A guarded item runs twice: its first run saved nothing.
    return sum / cost.multiplyAdds - this.columnOf(taken).guarded[item]!;
  }
}
