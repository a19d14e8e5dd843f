/** Inputs and options of a calibration. */

import type { Program } from '../model/program/program.js';
import type { Guard } from '../skip/guards.js';
import type { Metric } from '../skip/promise.js';
import type { TensorData } from '../tensor/tensor.js';
import type { Programs } from './programs.js';

/** Images to fit heads on, or to order settings by, read when they are needed. */
export interface FitImages {
  readonly count: number;
  /** Reads an image and prepares it for the model; undefined to leave it out. */
  load(index: number): Promise<TensorData | undefined>;
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

export interface CalibrationOptions {
  /** Limit on the rate of changed answers, or on the mean loss; 0.01 when left out. */
  readonly maxDisagreement?: number | undefined;
  /** Several such limits instead: the policy then has a setting for each of them, and all promises hold together. */
  readonly limits?: readonly number[] | undefined;
  /** Limit for every class and group; `maxDisagreement`, or each of `limits`, when left out. */
  readonly maxGroupDisagreement?: number | undefined;
  /** Probability that all limits hold; 0.95 when left out. */
  readonly confidence?: number | undefined;
  /**
   * What counts as a loss. `disagreement` (when left out): the answer differs from the full network's. `accuracy`: the full
   * network is right and the policy is wrong; needs labels. `probability`: how much the class probabilities change, as the
   * total variation distance.
   */
  readonly metric?: Metric | undefined;
  /** Also make a promise for each class: by label if every item has one, otherwise by the full network's answer. */
  readonly perClass?: boolean | undefined;
  /** Instead of a limit: the most that the policy may spend, as a fraction of the full network's multiply-adds. */
  readonly budget?: number | undefined;
  /** The same as the median time of one item at batch 1, in milliseconds, on this machine. */
  readonly budgetMs?: number | undefined;
  /**
   * The network whose answers are promised, instead of the calibrated one in full, and its SHA-256: the float form of an 8-bit
   * network. Guards verify with it.
   */
  readonly reference?: { readonly program: Program | Programs; readonly sha256: string } | undefined;
  readonly guards?: readonly Guard[] | undefined;
  readonly labels?: readonly string[] | undefined;
  readonly seed?: number | undefined;
  /**
   * Further images that are used only to fit heads, such as the network's training images. The items then only choose
   * exits and thresholds, and certify. If the model has exits of its own, nothing is fitted: these images, at most 2,000, order
   * the settings, and all items certify. Images that are also among the items are left out.
   */
  readonly fit?: FitImages | undefined;
  /** Most altered copies of an image to fit heads on; 0 for the images alone, 15 when left out. */
  readonly copies?: number | undefined;
  /** Number of settings of the dial to try. */
  readonly settings?: number | undefined;
  /** Called with the items done and the total, over all passes over the data. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}
