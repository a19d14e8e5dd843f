/** Statistics over the items of a trace. Pure: entries in, numbers out. */
import { mean, median } from '../numeric/statistics.js';
import type { AuditEntry } from './read.js';
import { type AuditHeader, lettersOf } from './record.js';

export interface BlockSummary {
  readonly name: string;
  readonly skippable: boolean;
  readonly skipRate: number;
  /** Null also where it wasn't the same for all items: policies may have differed. */
  readonly threshold: number | null;
  /** All recorded scores. */
  readonly scores: readonly number[];
}

export interface PathSummary {
  readonly ran: string;
  readonly count: number;
}

export interface AuditSummary {
  readonly header: AuditHeader;
  readonly items: number;
  /** Items of other networks, which are left out. */
  readonly otherItems: number;
  /** The least and the greatest share of a session's items that was recorded: 1 unless the log is a sample. */
  readonly sample: readonly [least: number, greatest: number];
  readonly from: number;
  readonly to: number;
  /** Those that ran, by their items. */
  readonly policies: readonly { readonly sha256: string; readonly items: number }[];
  /** Answers that any of them guards. */
  readonly guards: readonly string[];
  readonly blocks: readonly BlockSummary[];
  /** Means over the items, as fractions. */
  readonly blocksSkipped: number;
  readonly layersSkipped: number;
  readonly multiplyAddsSkipped: number;
  /** Most frequent first. */
  readonly paths: readonly PathSummary[];
  /** Skip rate of each block among the items answered with a class; classes by count. */
  readonly classes: readonly {
    readonly label: string;
    readonly items: number;
    readonly skipRates: readonly number[];
  }[];
  /** Items by number of blocks that ran, with the mean confidence of their answers. */
  readonly depths: readonly {
    readonly depth: number;
    readonly items: number;
    readonly confidence: number | null;
  }[];
  /** The stream in up to 60 slices of equal count. */
  readonly slices: readonly {
    readonly time: number;
    readonly layersSkipped: number;
    /** Median of the items. */
    readonly milliseconds: number;
    /** As in the whole summary, over this slice and its neighbours. */
    readonly latencySaved: number | null;
  }[];
  /** Median time of an item. */
  readonly milliseconds: number;
  /** One minus the ratio of the mean times of items that were timed both ways; null if none was. */
  readonly latencySaved: number | null;
  readonly timedBothWays: number;
  /** Items that a guard ran in full and items that left at an exit, by answer. */
  readonly exceptions: readonly {
    readonly label: string;
    readonly guarded: number;
    readonly exited: number;
  }[];
  /** Items that left at each exit, by the exit's block. */
  readonly exits: readonly { readonly after: string; readonly items: number }[];
  readonly reasons: Readonly<Record<string, number>>;
}

/** Most rows of a table by class, the most frequent first. */
export const MAX_CLASSES = 40;
const SLICES = 60;
/** Slices on either side whose items timed both ways also count, because there are few. */
const NEIGHBOURS = 3;

/** Number of blocks that an item ran. */
export const depthOf = ({ record }: AuditEntry) => [...record.ran].filter((digit) => digit === '1').length;

/** Items of the network that ran last. @param entries not empty */
export function ofLastNetwork(entries: readonly AuditEntry[]): AuditEntry[] {
  const { sha256 } = entries.at(-1)!.header.model;
  return entries.filter(({ header }) => header.model.sha256 === sha256);
}

/** @param all not empty; items of networks other than the last one's are left out */
export function summarise(all: readonly AuditEntry[]): AuditSummary {
  const { header } = all.at(-1)!;
  const entries = ofLastNetwork(all);
  const { blocks } = header;
  const headers = [...new Set(entries.map((entry) => entry.header))];
  const samples = headers.map(({ sample }) => sample);
  const times = entries.map(({ record }) => record.time);
  // Costs depend on the shape of an item, such as the length of a text: its own header has them.
  const skippedCost = ({ header, record }: AuditEntry, cost: 'layers' | 'multiplyAdds') =>
    header.blocks.reduce((sum, block, i) => sum + (record.ran[i] === '0' ? block[cost] : 0), 0);
  const meanOf = (value: (entry: AuditEntry) => number) => mean(entries.map(value));
  const skipRateOf = (block: number, among: readonly AuditEntry[]) =>
    among.filter(({ record }) => record.ran[block] === '0').length / among.length;
  const layersSkippedOf = (entry: AuditEntry) =>
    skippedCost(entry, 'layers') / Math.max(1, entry.header.layers);

  return {
    header,
    items: entries.length,
    otherItems: all.length - entries.length,
    sample: [Math.min(...samples), Math.max(...samples)],
    // A clock may have gone backwards.
    from: times.reduce((a, b) => Math.min(a, b)),
    to: times.reduce((a, b) => Math.max(a, b)),
    policies: [...groupBy(entries, (entry) => entry.header.policy.sha256)].map(([sha256, among]) => ({
      sha256,
      items: among.length,
    })),
    guards: [...new Set(headers.flatMap((one) => one.policy.guards))],
    blocks: blocks.map(({ name, skippable, threshold }, i) => ({
      name,
      skippable,
      threshold: headers.every((one) => one.blocks[i]!.threshold === threshold) ? threshold : null,
      skipRate: skipRateOf(i, entries),
      scores: entries.flatMap(({ record }) => record.scores[i] ?? []),
    })),
    blocksSkipped: meanOf(
      ({ record }) =>
        [...record.ran].filter((digit) => digit === '0').length / Math.max(1, record.ran.length),
    ),
    layersSkipped: meanOf(layersSkippedOf),
    multiplyAddsSkipped: meanOf(
      (entry) =>
        (entry.record.multiplyAddsSkipped ?? skippedCost(entry, 'multiplyAdds')) /
        Math.max(1, entry.header.multiplyAdds),
    ),
    paths: countPaths(entries),
    classes: [...groupBy(entries, classOf)]
      .filter(([index]) => index !== undefined)
      .map(([index, among]) => ({
        label: answerOf(header, index),
        items: among.length,
        skipRates: blocks.map((_, i) => skipRateOf(i, among)),
      }))
      .sort((a, b) => b.items - a.items),
    depths: [...groupBy(entries, depthOf)]
      .map(([depth, among]) => ({ depth, items: among.length, confidence: meanConfidence(among) }))
      .sort((a, b) => a.depth - b.depth),
    slices: slice(entries, layersSkippedOf),
    milliseconds: medianTime(entries),
    latencySaved: latencySavedOf(entries),
    timedBothWays: entries.filter(({ timed }) => timed !== null).length,
    exceptions: exceptionsOf(entries),
    exits: [...groupBy(entries.filter(leftEarly), exitOf)].map(([after, among]) => ({
      after,
      items: among.length,
    })),
    reasons: countReasons(entries),
  };
}

function countPaths(entries: readonly AuditEntry[]): PathSummary[] {
  return [...groupBy(entries, ({ record }) => record.ran)]
    .map(([ran, among]) => ({ ran, count: among.length }))
    .sort((a, b) => b.count - a.count || (a.ran < b.ran ? -1 : 1));
}

function countReasons(entries: readonly AuditEntry[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { record } of entries) {
    for (const reason of lettersOf(record)) counts[reason] = (counts[reason] ?? 0) + 1;
  }
  return counts;
}

function meanConfidence(entries: readonly AuditEntry[]): number | null {
  const known = entries.flatMap(({ record }) => record.top[0]?.[1] ?? []);
  return known.length > 0 ? mean(known) : null;
}

function slice(entries: readonly AuditEntry[], layersSkipped: (entry: AuditEntry) => number) {
  const count = Math.min(SLICES, entries.length);
  const start = (i: number) => Math.floor((Math.min(Math.max(i, 0), count) * entries.length) / count);
  return Array.from({ length: count }, (_, i) => {
    const part = entries.slice(start(i), start(i + 1));
    return {
      time: part[0]!.record.time,
      layersSkipped: mean(part.map(layersSkipped)),
      milliseconds: medianTime(part),
      latencySaved: latencySavedOf(entries.slice(start(i - NEIGHBOURS), start(i + NEIGHBOURS + 1))),
    };
  });
}

/** The best class; undefined for an answer without one, such as NaN. */
function classOf({ record }: AuditEntry): number | undefined {
  const [index, probability] = record.top[0] ?? [];
  return probability === null ? undefined : index;
}

const leftEarly = ({ record }: AuditEntry) => lettersOf(record).has('x');
const exitOf = ({ record }: AuditEntry) => record.answeredBy ?? record.exits.at(-1)?.[0] ?? '';
const wasGuarded = ({ record }: AuditEntry) => lettersOf(record).has('v');

function exceptionsOf(entries: readonly AuditEntry[]): AuditSummary['exceptions'] {
  const special = entries.filter((entry) => leftEarly(entry) || wasGuarded(entry));
  return [...groupBy(special, (entry) => answerOf(entry.header, classOf(entry)))]
    .map(([label, among]) => ({
      label,
      guarded: among.filter(wasGuarded).length,
      exited: among.filter(leftEarly).length,
    }))
    .sort((a, b) => b.guarded + b.exited - (a.guarded + a.exited));
}

/** Name of a class; undefined stands for items of a network without float32 outputs. */
function answerOf({ labels }: AuditHeader, index: number | undefined): string {
  return index === undefined ? 'no answer' : (labels?.[index] ?? `class ${index}`);
}

const medianTime = (entries: readonly AuditEntry[]) =>
  median(entries.map(({ record }) => record.milliseconds));

function latencySavedOf(entries: readonly AuditEntry[]): number | null {
  const total = { full: 0, skip: 0 };
  for (const { timed } of entries) {
    total.full += timed?.full ?? 0;
    total.skip += timed?.skip ?? 0;
  }
  return total.full > 0 ? 1 - total.skip / total.full : null;
}

function groupBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const k = key(item);
    const group = groups.get(k);
    if (group) group.push(item);
    else groups.set(k, [item]);
  }
  return groups;
}
