/** What a calibration takes and gives. */
import type { Guard } from '../skip/guards.js';
import type { SkipPolicy } from '../skip/policy.js';

/** One image, prepared for the model. */
export interface CalibrationItem {
  readonly input: Float32Array;
  /** Hex SHA-256 of its content. */
  readonly sha256: string;
  /** Class index; required for the metric `accuracy`. */
  readonly label?: number;
}

export interface CalibrationOptions {
  /** Rate that the policy must keep below; 0.01 when left out. */
  readonly maxDisagreement?: number;
  /** Probability that it does; 0.95 when left out. */
  readonly confidence?: number;
  /** `disagreement` (when left out) needs no labels; `accuracy` counts what only the full network has right. */
  readonly metric?: 'disagreement' | 'accuracy';
  /** Fraction of the full network's multiply-adds that the policy may spend: the best within it, certified or not. */
  readonly budget?: number;
  readonly guards?: readonly Guard[];
  readonly labels?: readonly string[];
  readonly seed?: number;
  /** Settings of the dial. */
  readonly settings?: number;
  /** Called with items done and items to do, of all passes over the data together. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** One setting of the dial, as measured on the items that certify. */
export interface SettingResult {
  readonly price: number;
  readonly events: number;
  readonly items: number;
  readonly pValue: number;
  readonly upperBound: number;
  /** Means over the items; fractions. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** Items that took each exit and skipped each gated block, as fractions, by block. */
  readonly exits: Readonly<Record<string, number>>;
  readonly skips: Readonly<Record<string, number>>;
}

export interface Calibration {
  readonly policy: SkipPolicy;
  readonly settings: readonly SettingResult[];
  /** Index of the setting that the policy has; -1 for no skipping. */
  readonly chosen: number;
  /** By class of the full network's answer: items, and how many of them broke the rule under the policy. */
  readonly classes: readonly { readonly label: string; readonly items: number; readonly events: number }[];
}
