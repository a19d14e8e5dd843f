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
  /** Rows from the highest score to the lowest. */
  readonly ranked: Uint32Array;
}

/** What rows spend, as fractions of the whole network. An exit with the threshold NEVER isn't evaluated. */
export interface Costs {
  /** What a row that comes to an exit spends on it, beyond what it spends without that exit. */
  passing(exit: number, thresholds: readonly number[]): number;
  /** All that rows spend that leave at each exit, and then at the end; without `passing` an exit that isn't in use. */
  leaving(thresholds: readonly number[]): readonly number[];
}

/** Fraction of a small network's time that evaluating a head takes. */
const HEAD_COST = 0.004;

/** In multiply-adds, but for heads: the time that they take isn't in proportion to theirs. */
function workOf(exits: readonly ExitScores[]): Costs {
  const leaving = [...exits.map(({ saving }) => -saving), 0];
  return { passing: () => HEAD_COST, leaving: () => leaving };
}
/** Most rounds of setting the exits one after another; they converge long before. */
const MAX_SWEEPS = 8;

/**
 * Thresholds for any penalty, with exits in network order. Request penalties from high to low: the search for one starts from
 * the thresholds of the previous one.
 */
export class ThresholdSearch {
  #thresholds: number[];
  readonly #rows: number;

  constructor(
    private readonly exits: readonly ExitScores[],
    private readonly costs: Costs = workOf(exits),
  ) {
    this.#rows = exits[0]?.scores.length ?? 0;
    this.#thresholds = exits.map(() => NEVER);
  }

  /**
   * Coordinate descent on the sum over rows of what they spend + penalty * risk: each exit in turn, from the last to the first,
   * gets the best threshold while the others don't change.
   */
  at(penalty: number): readonly number[] {
    const thresholds = [...this.#thresholds];
    const end = this.exits.length;
    for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
      const before = [...thresholds];
      const first = this.#firstTaking(thresholds);
      // The exit behind the one that is set that takes each row, and its risk.
      const later: Later = {
        exits: new Int32Array(this.#rows).fill(end),
        risks: new Float64Array(this.#rows),
      };
      for (let e = end - 1; e >= 0; e--) {
        // Those before it haven't changed in this sweep.
        const threshold = this.#best(e, penalty, thresholds, first, later);
        thresholds[e] = threshold;
        const { scores, risks } = this.exits[e]!;
        for (let row = 0; row < this.#rows; row++) {
          if (!(scores[row]! >= threshold)) continue;
          later.exits[row] = e;
          later.risks[row] = risks[row]!;
        }
      }
      if (thresholds.every((threshold, e) => threshold === before[e])) break;
    }
    this.#thresholds = thresholds;
    return thresholds;
  }

  /**
   * @param first the exit that takes each row now: those of exits before this one don't come to it
   * @param later what each row would take otherwise
   */
  #best(e: number, penalty: number, thresholds: readonly number[], first: Int32Array, later: Later): number {
    const { ranked, scores, risks } = this.exits[e]!;
    const without = thresholds.with(e, NEVER);
    const leaving = this.costs.leaving(without);
    const others = Float64Array.from(leaving, (spent) => spent - leaving[e]!);
    let coming = 0;
    for (let row = 0; row < first.length; row++) if (first[row]! >= e) coming++;
    let worth = -this.costs.passing(e, without) * coming;
    let [best, threshold, last] = [0, NEVER, NEVER];
    for (let rank = 0; rank < ranked.length; rank++) {
      const row = ranked[rank]!;
      if (first[row]! < e) continue;
      const score = scores[row]!;
      // Rows with the same score leave together.
      if (score !== last && worth > best) [best, threshold] = [worth, last];
      last = score;
      worth += others[later.exits[row]!]! + penalty * (later.risks[row]! - risks[row]!);
    }
    return worth > best ? last : threshold;
  }

  /** The exit that takes each row; their number where none does. */
  #firstTaking(thresholds: readonly number[]): Int32Array {
    const first = new Int32Array(this.#rows).fill(this.exits.length);
    for (let e = this.exits.length - 1; e >= 0; e--) {
      const [{ scores }, threshold] = [this.exits[e]!, thresholds[e]!];
      for (let row = 0; row < first.length; row++) if (scores[row]! >= threshold) first[row] = e;
    }
    return first;
  }
}

interface Later {
  readonly exits: Int32Array;
  readonly risks: Float64Array;
}

/** Penalties to try, high first: the first settings skip least. */
export function penalties(steps: number): number[] {
  const [high, low] = [Math.log(1e4), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(high + ((low - high) * i) / (steps - 1)));
}

/** Rows from the highest score to the lowest. */
export function rankingOf(scores: ArrayLike<number>): Uint32Array {
  return Uint32Array.from({ length: scores.length }, (_, row) => row).sort(
    (a, b) => scores[b]! - scores[a]! || a - b,
  );
}
