/** What a trace says when its items are taken together. Pure: entries in, numbers out. */
import type { AuditEntry } from './read.js';
import type { AuditHeader } from './record.js';

export interface BlockSummary {
  readonly name: string;
  readonly skippable: boolean;
  readonly skipRate: number;
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
  readonly from: number;
  readonly to: number;
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
    readonly milliseconds: number;
  }[];
  readonly reasons: Readonly<Record<string, number>>;
}

const SLICES = 60;

/** @param entries not empty; those of other networks than the last one's are left out */
export function summarise(all: readonly AuditEntry[]): AuditSummary {
  const { header } = all.at(-1)!;
  const entries = all.filter((entry) => entry.header.model.sha256 === header.model.sha256);
  const { blocks } = header;
  const skippedCost = (ran: string, cost: 'layers' | 'multiplyAdds') =>
    blocks.reduce((sum, block, i) => sum + (ran[i] === '0' ? block[cost] : 0), 0);
  const mean = (value: (entry: AuditEntry) => number) =>
    entries.reduce((sum, entry) => sum + value(entry), 0) / entries.length;
  const skipRateOf = (block: number, among: readonly AuditEntry[]) =>
    among.filter(({ record }) => record.ran[block] === '0').length / among.length;
  const layersSkippedOf = ({ record }: AuditEntry) =>
    skippedCost(record.ran, 'layers') / Math.max(1, header.layers);

  return {
    header,
    items: entries.length,
    from: entries[0]!.record.time,
    to: entries.at(-1)!.record.time,
    blocks: blocks.map(({ name, skippable, threshold }, i) => ({
      name,
      skippable,
      threshold,
      skipRate: skipRateOf(i, entries),
      scores: entries.flatMap(({ record }) => record.scores[i] ?? []),
    })),
    blocksSkipped: mean(
      ({ record }) => [...record.ran].filter((digit) => digit === '0').length / blocks.length,
    ),
    layersSkipped: mean(layersSkippedOf),
    multiplyAddsSkipped: mean(({ record }) => skippedCost(record.ran, 'multiplyAdds') / header.multiplyAdds),
    paths: countPaths(entries),
    classes: [...groupBy(entries, ({ record }) => record.top[0]?.[0])]
      .filter(([index]) => index !== undefined)
      .map(([index, among]) => ({
        label: header.labels?.[index!] ?? `class ${index}`,
        items: among.length,
        skipRates: blocks.map((_, i) => skipRateOf(i, among)),
      }))
      .sort((a, b) => b.items - a.items),
    depths: [...groupBy(entries, ({ record }) => [...record.ran].filter((digit) => digit === '1').length)]
      .map(([depth, among]) => ({ depth, items: among.length, confidence: meanConfidence(among) }))
      .sort((a, b) => a.depth - b.depth),
    slices: slice(entries, layersSkippedOf),
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
    for (const reason of new Set(record.reasons)) counts[reason] = (counts[reason] ?? 0) + 1;
  }
  return counts;
}

function meanConfidence(entries: readonly AuditEntry[]): number | null {
  const known = entries.flatMap(({ record }) => record.top[0]?.[1] ?? []);
  return known.length > 0 ? known.reduce((a, b) => a + b, 0) / known.length : null;
}

function slice(entries: readonly AuditEntry[], layersSkipped: (entry: AuditEntry) => number) {
  const count = Math.min(SLICES, entries.length);
  return Array.from({ length: count }, (_, i) => {
    const part = entries.slice(
      Math.floor((i * entries.length) / count),
      Math.floor(((i + 1) * entries.length) / count),
    );
    const mean = (value: (entry: AuditEntry) => number) =>
      part.reduce((sum, e) => sum + value(e), 0) / part.length;
    return {
      time: part[0]!.record.time,
      layersSkipped: mean(layersSkipped),
      milliseconds: mean(({ record }) => record.milliseconds),
    };
  });
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
