/**
 * Thresholds of all exits from one number, a penalty for changed answers: each exit's is lowered to the confidence where
 * the saving is worth the penalty times the answers that are likely to change. Falling penalties give an order of settings, from
 * "no skipping" to the boldest.
 */
import { NEVER } from '../../skip/scores.js';

/** An exit with its scores on some rows. */
export interface ExitScores {
  /** Fraction of the network's multiply-adds that taking it saves. */
  readonly saving: number;
  /** For each row: its confidence. */
  readonly scores: ArrayLike<number>;
  /** For each row: the probability that the exit changes the answer, estimated from its confidence. */
  readonly risks: ArrayLike<number>;
}

/** What rows spend, as fractions of the whole network. An exit with the threshold NEVER isn't evaluated. */
export interface Costs {
  /** What a row that comes to an exit spends on it, beyond what it spends without that exit. */
  passing(exit: number, thresholds: readonly number[]): number;
  /** All that a row spends that leaves at an exit, or at the end (the number of exits); without `passing` an exit that isn't in use. */
  leaving(exit: number, thresholds: readonly number[]): number;
}

/** Fraction of a small network's time that evaluating a head takes. */
const HEAD_COST = 0.004;

/** In multiply-adds, but for heads: the time that they take isn't in proportion to theirs. */
function workOf(exits: readonly ExitScores[]): Costs {
  return { passing: () => HEAD_COST, leaving: (exit) => -(exits[exit]?.saving ?? 0) };
}
/** Most rounds of setting the exits one after another; they converge long before. */
const MAX_SWEEPS = 8;

/**
 * Thresholds for any penalty, with exits in network order. Request penalties from high to low: the search for one starts from
 * the thresholds of the previous one.
 */
export class ThresholdSearch {
  /** Rows of each exit, from the highest score to the lowest. */
  readonly #ranked: readonly Uint32Array[];
  #thresholds: number[];

  constructor(
    private readonly exits: readonly ExitScores[],
    private readonly costs: Costs = workOf(exits),
  ) {
    this.#ranked = exits.map(({ scores }) => ranking(scores));
    this.#thresholds = exits.map(() => NEVER);
  }

  /**
   * Coordinate descent on the sum over rows of what they spend + penalty * risk: each exit in turn, from the last to the first,
   * gets the best threshold while the others don't change.
   */
  at(penalty: number): readonly number[] {
    const thresholds = [...this.#thresholds];
    for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
      const before = [...thresholds];
      const first = this.#firstTaking(thresholds);
      // The exit behind the one that is set that takes each row.
      const later = new Int32Array(first.length).fill(this.exits.length);
      for (let e = this.exits.length - 1; e >= 0; e--) {
        // Those before it haven't changed in this sweep.
        const rows = this.#ranked[e]!.filter((row) => first[row]! >= e);
        thresholds[e] = this.#best(e, penalty, thresholds, rows, later);
        const { scores } = this.exits[e]!;
        for (let row = 0; row < later.length; row++) if (scores[row]! >= thresholds[e]!) later[row] = e;
      }
      if (thresholds.every((threshold, e) => threshold === before[e])) break;
    }
    this.#thresholds = thresholds;
    return thresholds;
  }

  /**
   * @param rows those that come to the exit, from the highest score to the lowest
   * @param later what each row would take otherwise
   */
  #best(
    e: number,
    penalty: number,
    thresholds: readonly number[],
    rows: Uint32Array,
    later: Int32Array,
  ): number {
    const { scores, risks } = this.exits[e]!;
    const without = thresholds.with(e, NEVER);
    const own = this.costs.leaving(e, without);
    const others = [...this.exits, null].map((_, i) => this.costs.leaving(i, without) - own);
    let worth = -this.costs.passing(e, without) * rows.length;
    let [best, threshold] = [0, NEVER];
    for (const [rank, row] of rows.entries()) {
      const other = later[row]!;
      worth += others[other]! + penalty * ((this.exits[other]?.risks[row] ?? 0) - risks[row]!);
      // Rows with the same score leave together.
      if (scores[rows[rank + 1] ?? -1] === scores[row] || worth <= best) continue;
      [best, threshold] = [worth, scores[row]!];
    }
    return threshold;
  }

  /** The exit that takes each row; their number where none does. */
  #firstTaking(thresholds: readonly number[]): Int32Array {
    const first = new Int32Array(this.#ranked[0]?.length ?? 0).fill(this.exits.length);
    for (let e = this.exits.length - 1; e >= 0; e--) {
      const { scores } = this.exits[e]!;
      for (let row = 0; row < first.length; row++) if (scores[row]! >= thresholds[e]!) first[row] = e;
    }
    return first;
  }
}

function ranking(scores: ArrayLike<number>): Uint32Array {
  return Uint32Array.from({ length: scores.length }, (_, row) => row).sort(
    (a, b) => scores[b]! - scores[a]! || a - b,
  );
}

/** Penalties to try, high first: the first settings skip least. */
export function penalties(steps: number): number[] {
  const [high, low] = [Math.log(1e4), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(high + ((low - high) * i) / (steps - 1)));
}
