/** What differs between networks whose answer is one class, which get exits, and all others, which lose blocks. */
import type { ExitSpec } from '../skip/exits.js';
import type { ScoreDistributions } from '../skip/score-distribution.js';
import type { Calibration } from './report/result.js';
import type { CalibrationItem } from './run/items.js';
import type { Part, Split } from './split.js';

/** One way to skip. */
export interface Setting {
  /** The exits to evaluate; undefined where a network gets none. */
  readonly exits?: readonly ExitSpec[];
  /** Indices of the blocks that no item runs. */
  readonly omitted: ReadonlySet<number>;
}

/** The effect of a setting on the items that certify. */
export interface Effect {
  /** Losses are in [0, maxLoss(metric)], or -1 where `accuracy` gains an answer. */
  readonly byItem: {
    readonly losses: readonly number[];
    /** By each of the further metrics that are promised. */
    readonly further: readonly (readonly number[])[];
  };
  /** Means over the items; fractions. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** Fraction of the items that left at each exit, by block. */
  readonly exits: Readonly<Record<string, number>>;
  readonly distributions?: { readonly gate: ScoreDistributions; readonly exit: ScoreDistributions };
}

/** Methods are called in this order, each once but for `verify`. */
export interface Strategy<S extends Setting = Setting, E extends Effect = Effect> {
  /** The first part that items are needed for. */
  readonly first: Part;
  /** The class of each item that certifies, or its classes, by index, for groups; nothing else is read from these items before `measure`. */
  classesOf(split: Split): Promise<readonly (number | readonly number[])[]>;
  /** Settings that are worth a test, from careful to bold. */
  order(split: Split): Promise<readonly S[]>;
  /** @param items those that certify */
  measure(settings: readonly S[], items: readonly CalibrationItem[]): Promise<readonly E[]>;
  /** @throws ResidualSkipError INTERNAL when running a setting does something else than what was measured */
  verify(setting: S, effect: E): Promise<void>;
  /** What a setting did to classes and single items; undefined where nothing is skipped. */
  describe(
    setting: S | undefined,
    effect: E | undefined,
  ): Pick<Calibration, 'contributions' | 'rungs' | 'classes' | 'examples'>;
  release(): void;
}
