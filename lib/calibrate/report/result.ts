/** What a calibration returns. */
import type { SkipPolicy } from '../../skip/policy.js';
import type { Latency } from '../../skip/promise.js';
import type { Certificate } from '../certify/certify.js';

/** One setting, as measured on the items that certify. */
export interface SettingResult extends Certificate {
  /** By each of the other metrics that are promised with the first. `worstPValue` is that of all. */
  readonly also?: readonly Certificate[];
  /** Means over the items; fractions. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
  /** Fraction of the items that left at each exit, by block. */
  readonly exits: Readonly<Record<string, number>>;
  /** Measured on some of the items. */
  readonly latency: Latency;
}

/** What an exit contributes to the policy. */
export interface Contribution {
  readonly kind: 'exit';
  /** The block that the exit follows. */
  readonly block: string;
  /** Fraction of the items that left there. */
  readonly rate: number;
  /** Fraction of the network's multiply-adds that it saves, averaged over all items, less the cost of its head. */
  readonly multiplyAddsSkipped: number;
}

/** What answers at one place of a policy, and how often. */
export interface Rung {
  /** Of the exit: its block, or its front; null for the network itself. */
  readonly name: string | null;
  /** Fraction of the items that it answered. */
  readonly answered: number;
  /** Of these, the number with any loss. */
  readonly events: number;
  /** Multiply-adds of an item that it answers, with every block in front of it run, as a fraction of the network's. */
  readonly work: number;
}

/** What the policy did to the items of one class. */
export interface ClassResult {
  readonly label: string;
  readonly items: number;
  /** Items with any loss. */
  readonly events: number;
  /** Mean loss. */
  readonly risk: number;
  /** Mean over the items, as a fraction of the network's multiply-adds. */
  readonly multiplyAddsSkipped: number;
}

/** What the policy did to one item. */
export interface Example {
  /** Hash of the item. */
  readonly sha256: string;
  /** Answer with the policy. */
  readonly answer: string;
  /** Answer with every block run. */
  readonly fullAnswer: string;
  /** The exit that answered; null for the network itself. */
  readonly exit: string | null;
  /** A digit for each block: 1 if it ran, 0 if it was skipped. */
  readonly ran: string;
  /** As a fraction of the network's multiply-adds; negative if the item cost more than in full. */
  readonly multiplyAddsSkipped: number;
  /** A small picture as a data URI (JPEG), if the item is an image and could be read again. */
  readonly thumbnail?: string;
}

/** The result of `calibrate`. */
export interface Calibration {
  /** To be written to a file with `JSON.stringify`, or passed as the option `policy` of `InferenceSession.create`. */
  readonly policy: SkipPolicy;
  /** Tested settings, with the p-values for the policy's limit: of several limits, the lowest with a certified setting. */
  readonly settings: readonly SettingResult[];
  /** Index of the policy's setting; -1 if it skips nothing. */
  readonly chosen: number;
  /** With several limits: indices of the policy's bolder settings. */
  readonly bolder: readonly number[];
  /** In the network's order. */
  readonly contributions: readonly Contribution[];
  /** What answered the items that certify: exits in the network's order, then the network; empty when nothing is skipped. */
  readonly rungs: readonly Rung[];
  /** Classes of the items that certify: by label if every item has one, otherwise by the full network's answer. */
  readonly classes: readonly ClassResult[];
  /** Items that skip most and least, among those that certify; empty when nothing is skipped. */
  readonly examples: { readonly most: readonly Example[]; readonly least: readonly Example[] };
  /** Hashes of the items that certify. */
  readonly certifiedOn: readonly string[];
  /** Items left out because another one has the same content. */
  readonly duplicates: number;
  /** Item runs whose results were taken from the folder `state`, and those computed now; null without `state`. */
  readonly resumed: { readonly taken: number; readonly computed: number } | null;
}
