/** What a calibration returns. */
import type { SkipPolicy } from '../skip/policy.js';
import type { Latency } from '../skip/promise.js';
import type { Certificate } from './certify.js';

/** One setting of the dial, as measured on the items that certify. */
export interface SettingResult extends Certificate {
  /** Of the dial: an exit is taken while what it saves is worth this many times the answers that it changes. */
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
  /** The block behind which the exit is. */
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
  /** Mean over the items, as a fraction of the network's. */
  readonly multiplyAddsSkipped: number;
}

/** What the policy did to one item. */
export interface Example {
  /** Hash of the item. */
  readonly sha256: string;
  /** With the policy. */
  readonly answer: string;
  /** With every block run. */
  readonly fullAnswer: string;
  /** A digit for each block: 1 ran, 0 skipped. */
  readonly ran: string;
  /** As a fraction of the network's; negative if the item cost more than in full. */
  readonly multiplyAddsSkipped: number;
  /** A small picture of it as a data URI (JPEG), where the item was an image that could be read again. */
  readonly thumbnail?: string;
}

/** What `calibrate` returns. */
export interface Calibration {
  /** For `JSON.stringify` into a file, or for the option `policy` of `InferenceSession.create`. */
  readonly policy: SkipPolicy;
  /** Judged by the limit of the policy, the lowest of several that certified anything. */
  readonly settings: readonly SettingResult[];
  /** Index of the setting that the policy has; -1 for no skipping. */
  readonly chosen: number;
  /** Of several limits: indices of the settings that the policy's bolder settings have. */
  readonly bolder: readonly number[];
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
  /** Runs of an item that an earlier calibration had left in the folder `state`, and those that were done now; null without it. */
  readonly resumed: { readonly taken: number; readonly computed: number } | null;
}
