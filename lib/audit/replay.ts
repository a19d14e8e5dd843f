import type { InferenceSession } from '../session/session.js';
import type { PolicySource } from '../skip/load-policy.js';
import type { TensorMap } from '../skip/observer.js';
import type { ItemTrace } from '../skip/trace.js';
import { hashItem } from './hash.js';
import { shortFloat } from './line.js';
import type { AuditEntry } from './read.js';
import { lettersOf } from './record.js';

/** The first difference between a recorded item and its replay. */
export interface ReplayDifference {
  readonly line: number;
  /** Name of the data item. */
  readonly item: string;
  readonly what: 'decision' | 'score' | 'output';
  /** Block, or the block or front of an exit, for decisions and scores. */
  readonly block: string | null;
  readonly recorded: string;
  readonly replayed: string;
}

/** How a replay compares with the log. */
export interface ReplayReport {
  /** Items in the log. */
  readonly recorded: number;
  /** Of these, items whose input is among the data. */
  readonly replayed: number;
  /** Of these, items with the same decisions, scores and outputs, bit for bit. */
  readonly identical: number;
  /** Recorded items whose input is not in the data. */
  readonly missing: number;
  /** Circumstances that differ and may explain a difference. */
  readonly circumstances: readonly string[];
  /** One for each item that differs, in the order of the log. */
  readonly differences: readonly ReplayDifference[];
}

/** One item of the data: its name and its input tensors with a batch axis of 1. */
export interface ReplayItem {
  readonly name: string;
  readonly feeds: TensorMap;
}

/**
 * Runs the data again and compares each recorded item with its replay, bit for bit: every decision, every score, and
 * the hash of the outputs. Items are found by the hash of their input; the data is read only until all are found.
 * Items that ran in full because the monitor had tripped run in full again.
 * @param onItem called after each recorded item
 * @param policies by their SHA-256: items that were recorded with one of them run with it, all others with the session's own
 */
export async function replayAudit(
  entries: readonly AuditEntry[],
  data: AsyncIterable<ReplayItem> | Iterable<ReplayItem>,
  session: InferenceSession,
  onItem?: () => void,
  policies: ReadonlyMap<string, PolicySource> = new Map(),
): Promise<ReplayReport> {
  const byInput = groupByInput(entries);
  const differences: ReplayDifference[] = [];
  let replayed = 0;
  for await (const { name, feeds } of data) {
    if (byInput.size === 0) break;
    const input = hashItem(feeds, 0, 1);
    const recorded = byInput.get(input) ?? [];
    byInput.delete(input);
    const policyOf = (entry: AuditEntry) =>
      isTripped(entry) ? 'full' : policies.get(entry.header.policy.sha256);
    for (const policy of new Set(recorded.map(policyOf))) {
      const alike = recorded.filter((entry) => policyOf(entry) === policy);
      const { outputs, trace } = await session.runTraced(feeds, { policy });
      const output = hashItem(outputs, 0, 1);
      for (const entry of alike) {
        replayed++;
        const difference = compare(entry, name, trace.items[0]!, output);
        if (difference) differences.push(difference);
        onItem?.();
      }
    }
  }
  differences.sort((a, b) => a.line - b.line);
  return {
    recorded: entries.length,
    replayed,
    identical: replayed - differences.length,
    missing: entries.length - replayed,
    circumstances: circumstances(entries, session, policies),
    differences,
  };
}

/** The monitor made the item run in full, whatever the policy. */
const isTripped = ({ record }: AuditEntry) => lettersOf(record).has('t');

/** Items without the hash of their input can't be found. */
function groupByInput(entries: readonly AuditEntry[]): Map<string, AuditEntry[]> {
  const groups = new Map<string, AuditEntry[]>();
  for (const entry of entries) {
    const { input } = entry.record;
    if (input === null) continue;
    const group = groups.get(input);
    if (group) group.push(entry);
    else groups.set(input, [entry]);
  }
  return groups;
}

function compare(
  { header, record, line }: AuditEntry,
  item: string,
  { blocks, exits }: ItemTrace,
  output: string,
): ReplayDifference | undefined {
  for (const [i, { ran, score }] of blocks.entries()) {
    const block = header.blocks[i]?.name ?? `block ${i}`;
    const [before, after] = [record.scores[i] ?? null, shortFloat(score)];
    const verb = (did: boolean) => (did ? 'ran' : 'skipped');
    if ((record.ran[i] === '1') !== ran) {
      return {
        line,
        item,
        what: 'decision',
        block,
        recorded: verb(record.ran[i] === '1'),
        replayed: verb(ran),
      };
    }
    if (!isSameScore(before, after)) {
      return { line, item, what: 'score', block, recorded: said(before), replayed: said(after) };
    }
  }
  for (let e = 0; e < Math.max(record.exits.length, exits.length); e++) {
    const [then, now] = [record.exits[e], exits[e]];
    const [before, after] = [then?.[1] ?? null, shortFloat(now?.score ?? null)];
    if (then?.[0] === now?.after && isSameScore(before, after)) continue;
    const block = then?.[0] ?? now!.after;
    // Another exit in its place means that this one wasn't asked.
    const replayed = then && now?.after !== then[0] ? null : after;
    return { line, item, what: 'score', block, recorded: said(before), replayed: said(replayed) };
  }
  if (record.output === output) return undefined;
  return { line, item, what: 'output', block: null, recorded: record.output, replayed: output };
}

/** Numbers with different text may be the same float32. */
function isSameScore(before: number | null, after: number | null): boolean {
  return before === null || after === null ? before === after : Math.fround(before) === Math.fround(after);
}

const said = (score: number | null) => (score === null ? 'not asked' : String(score));

/** What differs between the log's headers and the session, except what can't matter (ISA, threads). */
function circumstances(
  entries: readonly AuditEntry[],
  session: InferenceSession,
  policies: ReadonlyMap<string, PolicySource>,
): string[] {
  const { context } = session;
  const found = new Set<string>();
  for (const { header } of entries) {
    const differs = (what: string, before: string, after: string) => {
      if (before !== after)
        found.add(`the log was recorded with ${what} ${before}, the replay ran with ${after}`);
    };
    differs('the model of SHA-256', header.model.sha256, context.sha256);
    if (!policies.has(header.policy.sha256))
      differs('the policy of SHA-256', header.policy.sha256, context.policySha256);
    differs('residual-skip', header.engine, context.version);
    differs('the precision', header.precision ?? 'float32', context.precision);
    differs('the backend', header.backend, context.backend);
  }
  return [...found];
}
