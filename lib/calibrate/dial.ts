/**
 * The dial: one number that sets all exits together, from "no skipping" to the most aggressive. At price `p` each is taken
 * down to the confidence where what it saves is worth `p` times the answers it is likely to change.
 */
import { NEVER } from './table.js';

/** An exit, with what is known of it on some rows. */
export interface Lever {
  /** Of the network's multiply-adds, that taking it saves. */
  readonly saving: number;
  /** For each row: its confidence. */
  readonly scores: ArrayLike<number>;
  /** For each row: how likely it changes the answer, as its confidence has it. */
  readonly risks: ArrayLike<number>;
}

/** Share of a small network's time that asking a head takes: each row that comes to one pays it. */
const ASKING = 0.004;
/** Exits are set one after another so many times at most; they have settled long before. */
const MOST_SWEEPS = 8;

/**
 * Thresholds at any price, for exits in the order in which they are in the network. Prices are to be asked for from
 * high to low: the thresholds of one price start from those of the one before.
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
   * Coordinate ascent on the sum over rows of saving - price * risk: each exit in turn, from the last to the first, gets
   * the threshold that is best while the others stay.
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
