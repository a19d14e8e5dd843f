/** What a calibration on prepared items works on. */
import type { AnyExit } from '../../skip/exits.js';
import type { FrontSpec } from '../../skip/fronts.js';
import type { TensorData } from '../../tensor/tensor.js';
import type { Outcome } from './evaluator.js';

/** Images to fit heads on, or to order settings by, read when they are needed. */
export interface FitImages {
  readonly count: number;
  /** Reads an image and prepares it for the model; undefined to leave it out. */
  load(index: number): Promise<TensorData | undefined>;
  /** As the `sha256` of items; of its content alone when left out. */
  hashOf?(input: TensorData): string;
  /** Called each time that an image which is among the items is loaded, and therefore left out. */
  onShared?(index: number): void;
}

/** One image or text, prepared for the model. */
export interface CalibrationItem {
  readonly input: TensorData;
  /** Hex SHA-256 of its content. */
  readonly sha256: string;
  /** Class index; required for the metric `accuracy`. */
  readonly label?: number;
  /** Names of the groups that it belongs to; each group gets its own promise. */
  readonly groups?: readonly string[];
}

/** Exits and their settings that were chosen without the items that certify, so that these only have to be tested. */
export interface Choice {
  readonly fronts: readonly FrontSpec[];
  /** Those of the fronts, then others, in the order in which an item comes to them. */
  readonly exits: readonly AnyExit[];
  /** From careful to bold: a threshold for each exit. */
  readonly settings: readonly (readonly number[])[];
  /** How many ladders the same items certify, this one included: each is tested at an equal share of the error. */
  readonly ladders: number;
}

/** What is promised of an item, as numbers, from what its run gave. */
export type VectorOf = (outcome: Outcome, input: TensorData) => Float32Array;
