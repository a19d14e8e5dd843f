/** What a calibration takes. */

import type { Guard } from '../skip/guards.js';
import type { Metric } from '../skip/promise.js';

/** Images that heads are fitted on, read when they are needed. */
export interface FitImages {
  readonly count: number;
  /** Prepared for the model; undefined for one that is to be left out. */
  load(index: number): Promise<Float32Array | undefined>;
}

/** One image, prepared for the model. */
export interface CalibrationItem {
  readonly input: Float32Array;
  /** Hex SHA-256 of its content. */
  readonly sha256: string;
  /** Class index; required for the metric `accuracy`. */
  readonly label?: number;
  /** Names of groups that it belongs to, each of which gets a promise of its own. */
  readonly groups?: readonly string[];
}

export interface CalibrationOptions {
  /** Rate, or mean loss, that the policy must keep below; 0.01 when left out. */
  readonly maxDisagreement?: number | undefined;
  /** Or several such limits: the policy then has a setting for each of them, and all promises hold together. */
  readonly limits?: readonly number[] | undefined;
  /** The same for every class and group; `maxDisagreement`, or each of `limits`, when left out. */
  readonly maxGroupDisagreement?: number | undefined;
  /** Probability that it does; 0.95 when left out. */
  readonly confidence?: number | undefined;
  /**
   * `disagreement` (when left out): another answer than the full network's. `accuracy`: only the full network has it
   * right; needs labels. `probability`: how far the class probabilities move, as total variation distance.
   */
  readonly metric?: Metric | undefined;
  /** A promise for each class as well: by label where every item has one, else by the full network's answer. */
  readonly perClass?: boolean | undefined;
  /** Instead of a limit: the most that the policy may spend, as a fraction of the full network's multiply-adds. */
  readonly budget?: number | undefined;
  /** Or as the median time of one item at batch 1, in milliseconds, on this machine. */
  readonly budgetMs?: number | undefined;
  readonly guards?: readonly Guard[] | undefined;
  readonly labels?: readonly string[] | undefined;
  readonly seed?: number | undefined;
  /**
   * Further images that heads are fitted on, and that nothing else is done with: those the network was trained on, say. The items
   * then decide about thresholds and certify. Images that are among the items are left out.
   */
  readonly fit?: FitImages | undefined;
  /** Most altered copies of an image that heads are fitted on; 0 for the images alone, 15 when left out. */
  readonly copies?: number | undefined;
  /** Settings of the dial. */
  readonly settings?: number | undefined;
  /** Called with items done and items to do, of all passes over the data together. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}
