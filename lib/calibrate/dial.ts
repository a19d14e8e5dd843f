/**
 * The dial: one number that sets all exits together, from "no skipping" to the most aggressive. At price `p`, the
 * threshold of each exit is lowered to the confidence where the saving is worth `p` times the answers that are likely
 * to change.
 */
import { NEVER } from './table.js';

/** An exit with its data on some rows. */
export interface Lever {
  /** Fraction of the network's multiply-adds that taking it saves. */
  readonly saving: number;
  /** For each row: its confidence. */
  readonly scores: ArrayLike<number>;
  /** For each row: the probability that the exit changes the answer, estimated from its confidence. */
  readonly risks: ArrayLike<number>;
}

/** Fraction of a small network's time that evaluating a head takes: each row that reaches the head pays it. */
const ASKING = 0.004;
/** Most rounds of setting the exits one after another; they converge long before. */
const MOST_SWEEPS = 8;

/**
 * Thresholds for any price, with exits in network order. Request prices from high to low: the thresholds of one price
 * start from those of the previous one.
 */
export class Dial {
  /** Rows of each exit, from the highest score to the lowest. */
  readonly #ranked: readonly Uint32Array[];
  #thresholds: number[];

  constructor(private readonly exits: readonly Lever[]) {
    this.#ranked = exits.map(({ scores }) => ranking(scores));
    this.#thresholds = exits.map(() => NEVER);
  }

  /**
   * Coordinate ascent on the sum over rows of saving - price * risk: each exit in turn, from the last to the first,
   * gets the best threshold while the others don't change.
   */
  at(price: number): readonly number[] {
    const thresholds = [...this.#thresholds];
    for (let sweep = 0; sweep < MOST_SWEEPS; sweep++) {
      const before = [...thresholds];
      for (let e = this.exits.length - 1; e >= 0; e--) thresholds[e] = this.#best(e, price, thresholds);
      if (thresholds.every((threshold, e) => threshold === before[e])) break;
    }
    this.#thresholds = thresholds;
    return thresholds;
  }

  #best(e: number, price: number, thresholds: readonly number[]): number {
    const { scores } = this.exits[e]!;
    const rows = this.#ranked[e]!.filter((row) => this.#takenBy(row, 0, e, thresholds) < 0);
    let worth = -ASKING * rows.length;
    let [best, threshold] = [0, NEVER];
    for (const [rank, row] of rows.entries()) {
      const later = this.#takenBy(row, e + 1, this.exits.length, thresholds);
      worth += this.#worthOf(e, row, price) - (later < 0 ? 0 : this.#worthOf(later, row, price));
      // Rows with the same score leave together.
      if (scores[rows[rank + 1] ?? -1] === scores[row] || worth <= best) continue;
      [best, threshold] = [worth, scores[row]!];
    }
    return threshold;
  }

  #worthOf(e: number, row: number, price: number): number {
    const { saving, risks } = this.exits[e]!;
    return saving - price * risks[row]!;
  }

  /** The first of the exits [from, end) that takes a row; -1 when none does. */
  #takenBy(row: number, from: number, end: number, thresholds: readonly number[]): number {
    for (let e = from; e < end; e++) if (this.exits[e]!.scores[row]! >= thresholds[e]!) return e;
    return -1;
  }
}

function ranking(scores: ArrayLike<number>): Uint32Array {
  return Uint32Array.from({ length: scores.length }, (_, row) => row).sort(
    (a, b) => scores[b]! - scores[a]! || a - b,
  );
}

/** Prices of the dial, high first: the first settings skip least. */
export function prices(steps: number): number[] {
  const [high, low] = [Math.log(1e4), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(high + ((low - high) * i) / (steps - 1)));
}
