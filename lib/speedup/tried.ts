/** What a search tried, for tables and its report. */
import type { Thresholds } from '../calibrate/order/measure.js';
import type { Rung } from '../calibrate/report/result.js';
import { NEVER } from '../skip/scores.js';
import { isFaster, type Ladder, type Proves, type TimedLadder } from './choose.js';
import type { Pool, Prediction } from './pool.js';

/** A ladder that was tried, with predictions for the items that order; times as fractions of the full network's mean. */
export interface Tried extends Prediction {
  /** Names of its fronts, then that of the network. */
  readonly rungs: readonly string[];
  /** How many exits are behind blocks of its networks. */
  readonly exits: number;
  /** Multiply-adds, as a fraction of the full network's. */
  readonly work: number;
  /** Mean time, measured in alternation with the full network, for the fastest ones. */
  readonly measured?: number;
  /**
   * `unsafe`: no setting changes so few answers that it could be certified. `slow`: none saves time within the limit. `beaten`: another
   * one is faster. `certified`: it was certified beside the one that was chosen, which is faster. `refuted`: the items that certify have shown
   * that it changes too many answers.
   */
  readonly outcome: 'chosen' | 'certified' | 'beaten' | 'slow' | 'unsafe' | 'refuted';
  /** Its settings, from careful to bold. */
  readonly points: readonly Prediction[];
}

/** Something that ladders are made of, on the items that order, as if it were alone: a front, an exit, or the network in 8 bits. */
export interface TriedPart {
  /** Of the front, or of the exit: its block. */
  readonly name: string;
  /** The network that it is put into. */
  readonly network: string;
  /** Of an item that it answers, as fractions of the full network's mean. */
  readonly time: number;
  readonly work: number;
  /** Mean loss if it answered all items. */
  readonly risk: number;
  /** Fraction of the items that it can answer before the loss is more than can be certified. */
  readonly answers: number;
}

/** What answers at one place of a ladder. */
export interface LadderRung extends Rung {
  readonly name: string;
  /** Predicted for an item that it answers, as a fraction of the full network's mean. */
  readonly time: number;
}

/** @param tested what the items that certify have decided */
export function describe(
  ladders: readonly Ladder[],
  measured: readonly TimedLadder[],
  tested: ReadonlyMap<Ladder, Tried['outcome']>,
): Tried[] {
  return ladders
    .map((ladder): Tried => {
      const { pool, settings, boldest, predicted, points } = ladder;
      const timed = measured.find((one) => one.ladder === ladder);
      const thresholds = settings[Math.max(0, boldest)] ?? pool.exits.map(() => NEVER);
      const fronts = pool.exits.filter((_, e) => isFront(pool, e)).map(({ after }) => after);
      return {
        rungs: [...fronts, pool.name],
        exits: pool.exits.length - fronts.length,
        ...predicted,
        work: pool.work(thresholds),
        ...(timed && { measured: timed.mean }),
        outcome: tested.get(ladder) ?? lostBy(ladder, timed),
        points,
      };
    })
    .sort((a, b) => Number(isLost(a)) - Number(isLost(b)) || a.mean - b.mean);
}

function lostBy({ state }: Ladder, timed: TimedLadder | undefined): Tried['outcome'] {
  if (state !== 'pays') return state;
  return timed && !isFaster(timed) ? 'slow' : 'beaten';
}

const isLost = ({ outcome }: Tried) => outcome === 'slow' || outcome === 'unsafe';

/** Whether an exit is at the end of a front. */
function isFront({ times, own }: Pool, exit: number): boolean {
  const { network } = times[exit]!;
  return network < own && times[exit + 1]?.network !== network;
}

export function partsOf(pool: Pool, proves: Proves): TriedPart[] {
  const items = pool.tables.reduce((sum, table) => sum + table.items.length, 0);
  const alone = (e: number, threshold: number) => pool.exits.map((_, i) => (i === e ? threshold : NEVER));
  const parts = pool.exits.map(({ after }, e): TriedPart => {
    const all = alone(e, Number.NEGATIVE_INFINITY);
    const rows = pool.tables
      .flatMap(({ exits }) =>
        [...exits[e]!.confidences].map((score, i) => ({ score, loss: exits[e]!.losses[i]! })),
      )
      .sort((a, b) => b.score - a.score);
    let [sum, changed, answers] = [0, 0, 0];
    for (const [i, { loss }] of rows.entries()) {
      sum += loss;
      changed += Number(loss !== 0);
      // Items of one score leave together.
      if (rows[i + 1]?.score !== rows[i]!.score && proves({ risk: sum / items, changed: changed / items }))
        answers = (i + 1) / items;
    }
    return {
      ...{ name: after, network: pool.name, time: pool.spent(all)[e]!, work: pool.work(all) },
      ...{ risk: sum / items, answers },
    };
  });
  if (!pool.task.original) return parts;
  const predicted = pool.predict(alone(-1, NEVER));
  const { risk, mean: time } = predicted;
  const whole = { name: pool.name, network: pool.name, time, work: pool.work(alone(-1, NEVER)) };
  return [...parts, { ...whole, risk, answers: proves(predicted) ? 1 : 0 }];
}

/** @param rungs those of the policy, which leaves exits out that aren't evaluated */
export function ladderRungs(pool: Pool, thresholds: Thresholds, rungs: readonly Rung[]): LadderRung[] {
  const spent = pool.spent(thresholds.map(Math.fround));
  const names = pool.exits.map(({ after }) => after);
  return rungs.map((rung) => {
    const exit = rung.name === null ? names.length : names.indexOf(rung.name);
    return { ...rung, name: rung.name ?? pool.name, time: spent[exit]! };
  });
}
