/**
 * The dial: one number that turns all levers together, from "no skipping" to the most aggressive. At price `p` each
 * lever is pulled down to the score where what it saves is worth `p` times the answers it changes.
 */
import type { Heads } from '../skip/attach.js';
import type { Lever } from './levers.js';

/** A lever with the score from which it is pulled. */
export interface Setting {
  readonly lever: Lever;
  readonly threshold: number;
}

/** Losses that are added to those counted, so that a clean sample is not taken for a clean truth. */
const PRIOR_LOSSES = 0.5;
/** Share of a small network's time that asking a head takes: each row that comes to one pays it. */
const ASKING = 0.004;
/** Exits are set one after another so many times at most; they have settled long before. */
const MOST_SWEEPS = 8;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * Settings at any price, for levers in the order in which they stand in the network. Prices are to be asked for from
 * dear to cheap: the exits of one price start from those of the one before.
 */
export class Dial {
  readonly #exits: readonly Lever[];
  /** Rows of each exit, from the highest score to the lowest. */
  readonly #ranked: readonly Uint32Array[];
  /** Threshold of each exit. */
  readonly #exitAt: number[];

  constructor(private readonly levers: readonly Lever[]) {
    this.#exits = levers.filter(({ kind }) => kind === 'exit');
    this.#ranked = this.#exits.map(({ scores }) => ranking(scores));
    this.#exitAt = this.#exits.map(() => NEVER);
  }

  /** What is pulled at a price. */
  at(price: number): Setting[] {
    this.#setExits(price);
    const settings: Setting[] = [];
    const exitThreshold = new Map(this.#exits.map((lever, e) => [lever, this.#exitAt[e]!]));
    // A row that an exit took is out of reach of all gates that come behind it.
    const gone = new Set<number>();
    for (const lever of this.levers) {
      const threshold = exitThreshold.get(lever) ?? gateThreshold(lever, gone, price);
      if (threshold === NEVER) continue;
      settings.push({ lever, threshold });
      if (lever.kind === 'gate') continue;
      for (const [row, score] of lever.scores.entries()) if (score >= threshold) gone.add(row);
    }
    return settings;
  }

  /**
   * Coordinate ascent on the sum over rows of saving - price * loss: each exit in turn, from the last to the first, gets
   * the threshold that is best while the others stay.
   */
  #setExits(price: number): void {
    for (let sweep = 0; sweep < MOST_SWEEPS; sweep++) {
      const before = [...this.#exitAt];
      for (let e = this.#exits.length - 1; e >= 0; e--) this.#exitAt[e] = this.#bestExit(e, price);
      if (this.#exitAt.every((threshold, e) => threshold === before[e])) return;
    }
  }

  #bestExit(e: number, price: number): number {
    const { saving, scores, losses } = this.#exits[e]!;
    const ranked = this.#ranked[e]!;
    const comes = (row: number) => this.#exitOf(row, 0, e) < 0;
    let worth = -price * PRIOR_LOSSES - ASKING * ranked.reduce((sum, row) => sum + Number(comes(row)), 0);
    let [best, threshold] = [0, NEVER];
    for (let rank = 0; rank < ranked.length; rank++) {
      const row = ranked[rank]!;
      if (comes(row)) {
        const later = this.#exitOf(row, e + 1, this.#exits.length);
        const otherwise = later < 0 ? 0 : this.#worthOf(later, row, price);
        worth += saving - price * losses[row]! - otherwise;
      }
      // Rows with the same score are pulled together.
      if (rank + 1 < ranked.length && scores[ranked[rank + 1]!] === scores[row]) continue;
      if (worth <= best) continue;
      [best, threshold] = [worth, scores[row]!];
    }
    return threshold;
  }

  #worthOf(e: number, row: number, price: number): number {
    const { saving, losses } = this.#exits[e]!;
    return saving - price * losses[row]!;
  }

  /** The first of the exits [from, end) that takes a row; -1 when none does. */
  #exitOf(row: number, from: number, end: number): number {
    for (let e = from; e < end; e++) {
      if (this.#exits[e]!.scores[row]! >= this.#exitAt[e]!) return e;
    }
    return -1;
  }
}

function ranking(scores: Float64Array): Uint32Array {
  return Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

/** The threshold at which pulling a gate on all rows scored at least that high has the best saving - price * loss. */
export function gateThreshold(
  { scores, losses, saving }: Lever,
  gone: ReadonlySet<number>,
  price: number,
): number {
  const ranked = ranking(scores).filter((row) => !gone.has(row));
  let worth = -price * PRIOR_LOSSES - ASKING * ranked.length;
  let [best, threshold] = [0, NEVER];
  for (const [rank, row] of ranked.entries()) {
    worth += saving - price * losses[row]!;
    if (scores[ranked[rank + 1] ?? -1] === scores[row] || worth <= best) continue;
    [best, threshold] = [worth, scores[row]!];
  }
  return threshold;
}

/** Prices of the dial, dear first: the first settings skip least. */
export function prices(steps: number): number[] {
  const [dear, cheap] = [Math.log(100), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(dear + ((cheap - dear) * i) / (steps - 1)));
}

/** The same levers, each pulled only on `share` of the rows that it was pulled on: those that score highest. */
export function moreCareful(settings: readonly Setting[], share: number): Setting[] {
  return settings.map(({ lever, threshold }) => {
    const pulled = lever.scores.filter((score) => score >= threshold).sort((a, b) => b - a);
    return { lever, threshold: pulled[Math.ceil(share * pulled.length) - 1] ?? threshold };
  });
}

/** The heads that a policy with these settings brings along. A gate's score is that of running: the negative. */
export function headsOf(settings: readonly Setting[]): Heads {
  return {
    exits: settings
      .filter(({ lever }) => lever.kind === 'exit')
      .map(({ lever, threshold }) => ({ after: lever.block, head: lever.head, threshold })),
    gates: settings
      .filter(({ lever }) => lever.kind === 'gate')
      .map(({ lever, threshold }) => ({ block: lever.block, head: lever.head, threshold: -threshold })),
  };
}
