/** What a calibration returns. */
import type { SkipPolicy } from '../skip/policy.js';
import type { Latency } from '../skip/promise.js';
import type { Certificate } from './certify.js';
import type { ImageSource } from './fit.js';

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
  readonly maxDisagreement?: number;
  /** The same for every class and group; `maxDisagreement` when left out. */
  readonly maxGroupDisagreement?: number;
  /** Probability that it does; 0.95 when left out. */
  readonly confidence?: number;
  /**
   * `disagreement` (when left out): another answer than the full network's. `accuracy`: only the full network has it
   * right; needs labels. `probability`: how far the class probabilities move, as total variation distance.
   */
  readonly metric?: Metric;
  /** A promise for each class as well: by label where every item has one, else by the full network's answer. */
  readonly perClass?: boolean;
  /** Instead of a limit: the most that the policy may spend, as a fraction of the full network's multiply-adds. */
  readonly budget?: number;
  /** Or as the median time of one item at batch 1, in milliseconds, on this machine. */
  readonly budgetMs?: number;
  readonly guards?: readonly Guard[];
  readonly labels?: readonly string[];
  readonly seed?: number;
  /**
   * Further images that heads are fitted on, and that nothing else is done with: those the network was trained on, say. The items
   * then decide about thresholds and certify. Images that are among the items are left out.
   */
  readonly fit?: ImageSource;
  /** Most altered copies of an image that heads are fitted on; 0 for the images alone, 15 when left out. */
  readonly copies?: number;
  /** Settings of the dial. */
  readonly settings?: number;
  /** Called with items done and items to do, of all passes over the data together. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** One setting of the dial, as measured on the items that certify. */
export interface SettingResult extends Certificate {
  readonly price: number;
  /** Means over the items; fractions. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** Items that left at each exit, as fractions, by block. */
  readonly exits: Readonly<Record<string, number>>;
  /** Measured on some of the items. */
  readonly latency: Latency;
}

/** What an exit does for the policy. */
export interface Contribution {
  readonly kind: 'exit';
  readonly block: string;
  /** Items that it was taken for, as a fraction. */
  readonly rate: number;
  /** Of the network's multiply-adds, that it saves on average over all items, less those of its head. */
  readonly multiplyAddsSkipped: number;
}

/** What the policy did to the items of one class. */
export interface ClassResult {
  readonly label: string;
  readonly items: number;
  /** Items with any loss. */
  readonly events: number;
  /** Mean loss. */
  readonly risk: number;
  readonly multiplyAddsSkipped: number;
}

/** What the policy did to one item. */
export interface Example {
  /** Hash of the item. */
  readonly sha256: string;
  readonly answer: string;
  readonly fullAnswer: string;
  /** A digit for each block: 1 ran, 0 skipped. */
  readonly ran: string;
  readonly multiplyAddsSkipped: number;
}

export interface Calibration {
  readonly policy: SkipPolicy;
  readonly settings: readonly SettingResult[];
  /** Index of the setting that the policy has; -1 for no skipping. */
  readonly chosen: number;
  /** In the order in which they stand in the network. */
  readonly contributions: readonly Contribution[];
  /** Of the items that certify, by label where every item has one, else by the full network's answer. */
  readonly classes: readonly ClassResult[];
  /** Of the items that certify, those that skip most and least; empty when nothing is skipped. */
  readonly examples: { readonly most: readonly Example[]; readonly least: readonly Example[] };
  /** Hashes of the items that certify. */
  readonly certifiedOn: readonly string[];
  /** Items left out because another one has the same content. */
  readonly duplicates: number;
}
