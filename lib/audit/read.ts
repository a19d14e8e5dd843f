import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { ResidualSkipError } from '../errors.js';
import { type AuditEnergy, type AuditHeader, type AuditItem, decodeLine } from './record.js';

/** One recorded item with its header. */
export interface AuditEntry {
  readonly header: AuditHeader;
  readonly record: AuditItem;
  /** Line of the file, from 1. */
  readonly line: number;
  /** Times of the item with every block run and under the policy, measured alike; null if it wasn't timed. */
  readonly timed: { readonly full: number; readonly skip: number } | null;
}

/** A problem with a line. */
export interface AuditProblem {
  /** Line of the file, from 1. */
  readonly line: number;
  /** `truncated`: the last line is incomplete, as a killed process leaves it; `tampered`: anything else. */
  readonly kind: 'truncated' | 'tampered';
  /** Names the line and what is wrong with it. */
  readonly message: string;
}

/** What an audit log holds. */
export interface AuditTrace {
  /** Recorded items, in the order of the log. */
  readonly entries: readonly AuditEntry[];
  /** Lines that are no records, or were changed. */
  readonly problems: readonly AuditProblem[];
  /** CPU time and energy of items of the last model and policy, from the last measurement; null if there is none. */
  readonly energy: AuditEnergy | null;
}

/**
 * Reads an audit log. Lines that are not valid records are reported and left out; all others are returned.
 * @throws ResidualSkipError INVALID_DATA when the file can't be read or holds no header
 */
export async function readAudit(path: string): Promise<AuditTrace> {
  const entries: AuditEntry[] = [];
  const problems: AuditProblem[] = [];
  let header: AuditHeader | undefined;
  let energy: AuditEnergy | null = null;
  let link: string | undefined;
  let pending: { line: number; message: string } | undefined;
  const stream = createReadStream(path, 'utf8');
  let endsInNewline = true;
  stream.on('data', (chunk) => {
    endsInNewline = chunk.at(-1) === '\n';
  });
  try {
    let line = 0;
    for await (const text of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      line++;
      if (pending) problems.push({ ...pending, kind: 'tampered' });
      pending = undefined;
      const decoded = decodeLine(text, link);
      if ('problem' in decoded) {
        pending = { line, message: `line ${line} is not a record: ${decoded.problem}` };
        continue;
      }
      const { record } = decoded;
      if (!decoded.follows) {
        const message =
          link === undefined
            ? `line ${line} was changed: its link doesn't match its text`
            : `line ${line} doesn't continue the previous line: one of them was changed, removed or inserted`;
        problems.push({ line, kind: 'tampered', message });
      }
      link = decoded.link;
      if (record.type === 'header') {
        if (!isSameNetwork(header, record)) energy = null;
        header = record;
      } else if (!header || (record.type === 'full' && entries.length === 0))
        problems.push({ line, kind: 'tampered', message: `line ${line} precedes what it refers to` });
      else if (record.type === 'energy') energy = record;
      else if (record.type === 'item') entries.push({ header, record, line, timed: null });
      else if (record.skipMilliseconds !== undefined && entries.at(-1)!.record.run === record.run) {
        const timed = { full: record.milliseconds, skip: record.skipMilliseconds };
        entries.push({ ...entries.pop()!, timed });
      }
    }
  } catch (error) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `audit log '${path}': it can't be read (${(error as Error).message})`,
      {
        cause: error,
      },
    );
  }
  if (pending) problems.push({ ...pending, kind: endsInNewline ? 'tampered' : 'truncated' });
  if (!header) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `audit log '${path}': it has no header; expected a file that auditLog() wrote`,
    );
  }
  return { entries, problems, energy };
}

function isSameNetwork(before: AuditHeader | undefined, { model, policy }: AuditHeader): boolean {
  return before?.model.sha256 === model.sha256 && before.policy.sha256 === policy.sha256;
}
