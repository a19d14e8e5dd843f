/**
 * The dial: one number that turns all levers together, from "no skipping" to the most aggressive. At price `p` each
 * lever is pulled down to the score where what it saves is worth `p` times the answers it is likely to change.
 */
import type { GateSpec, Heads } from '../skip/attach.js';
import type { HeadLever, Lever } from './levers.js';

/** A lever with the score from which it is pulled. */
export interface Pulled {
  readonly lever: Lever;
  readonly threshold: number;
}

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
  readonly #exits: readonly HeadLever[];
  /** Rows of each lever, from the highest score to the lowest. */
  readonly #ranked: ReadonlyMap<Lever, Uint32Array>;
  /** Threshold of each exit. */
  #exitAt: number[];
  /** What they were at the prices that were asked for. */
  readonly #known = new Map<number, number[]>();

  constructor(private readonly levers: readonly Lever[]) {
    this.#exits = levers.filter(isExit);
    this.#ranked = new Map(levers.map((lever) => [lever, ranking(lever.scores)]));
    this.#exitAt = this.#exits.map(() => NEVER);
  }

  /** What is pulled at a price of levers of some kinds, exits among them: at most one gate for each block. */
  at(price: number, kinds: readonly Lever['kind'][] = ['exit', 'gate', 'confidence']): Pulled[] {
    this.#exitAt = this.#known.get(price) ?? this.#exitsFor(price);
    this.#known.set(price, this.#exitAt);
    const pulled: Pulled[] = [];
    // A row that an exit took is out of reach of all gates that come behind it.
    const gone = new Set<number>();
    let running: string | undefined;
    for (const block of new Set(this.levers.map((lever) => lever.block))) {
      const here = this.levers.filter((lever) => lever.block === block && kinds.includes(lever.kind));
      const gates = here.filter(
        (lever) => lever.kind === 'gate' || (lever.kind === 'confidence' && lever.reads === running),
      );
      let best = { threshold: NEVER, worth: 0 };
      let gate: Lever | undefined;
      for (const lever of gates) {
        const found = bestThreshold(lever, this.#ranked.get(lever)!, gone, price);
        if (found.worth > best.worth) [best, gate] = [found, lever];
      }
      if (gate) pulled.push({ lever: gate, threshold: best.threshold });
      const exit = here.find(isExit);
      const threshold = exit ? this.#exitAt[this.#exits.indexOf(exit)]! : NEVER;
      if (!exit || threshold === NEVER) continue;
      pulled.push({ lever: exit, threshold });
      running = block;
      for (const [row, score] of exit.scores.entries()) if (score >= threshold) gone.add(row);
    }
    return pulled;
  }

  /**
   * Coordinate ascent on the sum over rows of saving - price * risk: each exit in turn, from the last to the first, gets
   * the threshold that is best while the others stay.
   */
  #exitsFor(price: number): number[] {
    this.#exitAt = [...this.#exitAt];
    for (let sweep = 0; sweep < MOST_SWEEPS; sweep++) {
      const before = [...this.#exitAt];
      for (let e = this.#exits.length - 1; e >= 0; e--) this.#exitAt[e] = this.#bestExit(e, price);
      if (this.#exitAt.every((threshold, e) => threshold === before[e])) break;
    }
    return this.#exitAt;
  }

  #bestExit(e: number, price: number): number {
    const { scores } = this.#exits[e]!;
    const rows = this.#ranked.get(this.#exits[e]!)!.filter((row) => this.#exitOf(row, 0, e) < 0);
    let worth = -ASKING * rows.length;
    let [best, threshold] = [0, NEVER];
    for (const [rank, row] of rows.entries()) {
      const later = this.#exitOf(row, e + 1, this.#exits.length);
      worth += this.#worthOf(e, row, price) - (later < 0 ? 0 : this.#worthOf(later, row, price));
      // Rows with the same score are pulled together.
      if (scores[rows[rank + 1] ?? -1] === scores[row] || worth <= best) continue;
      [best, threshold] = [worth, scores[row]!];
    }
    return threshold;
  }

  #worthOf(e: number, row: number, price: number): number {
    const { saving, risks } = this.#exits[e]!;
    return saving - price * risks[row]!;
  }

  /** The first of the exits [from, end) that takes a row; -1 when none does. */
  #exitOf(row: number, from: number, end: number): number {
    for (let e = from; e < end; e++) {
      if (this.#exits[e]!.scores[row]! >= this.#exitAt[e]!) return e;
    }
    return -1;
  }
}

function isExit(lever: Lever): lever is HeadLever {
  return lever.kind === 'exit';
}

function ranking(scores: Float64Array): Uint32Array {
  return Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

/** The threshold at which pulling a gate on all rows scored at least that high has the best saving - price * risk. */
function bestThreshold(
  { kind, scores, risks, saving }: Lever,
  rows: Uint32Array,
  gone: ReadonlySet<number>,
  price: number,
): { threshold: number; worth: number } {
  const ranked = rows.filter((row) => !gone.has(row));
  // An exit's confidence is there anyway.
  let worth = kind === 'confidence' ? 0 : -ASKING * ranked.length;
  let best = { threshold: NEVER, worth: 0 };
  for (const [rank, row] of ranked.entries()) {
    worth += saving - price * risks[row]!;
    if (scores[ranked[rank + 1] ?? -1] === scores[row] || worth <= best.worth) continue;
    best = { threshold: scores[row]!, worth };
  }
  return best;
}

/** Prices of the dial, dear first: the first settings skip least. */
export function prices(steps: number): number[] {
  const [dear, cheap] = [Math.log(1e4), Math.log(2)];
  return Array.from({ length: steps }, (_, i) => Math.exp(dear + ((cheap - dear) * i) / (steps - 1)));
}

/**
 * The heads that a policy with these settings brings along. A gate's score is that of running: the negative.
 * @param which `head`, or `trial`: those that were fitted without the items of `order`
 */
export function headsOf(pulled: readonly Pulled[], which: 'head' | 'trial' = 'head'): Heads {
  return {
    exits: pulled.flatMap(({ lever, threshold }) =>
      lever.kind === 'exit' ? [{ after: lever.block, head: lever[which], threshold }] : [],
    ),
    gates: pulled.flatMap(({ lever, threshold }): GateSpec[] => {
      const { block } = lever;
      if (lever.kind === 'exit') return [];
      if (lever.kind === 'confidence') return [{ block, confidenceOf: lever.reads, threshold }];
      return [{ block, head: lever[which], threshold: -threshold }];
    }),
  };
}
