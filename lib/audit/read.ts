import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { verifier } from './checkpoint.js';
import {
  type AuditEnergy,
  type AuditHeader,
  type AuditItem,
  type AuditRecord,
  decodeLine,
} from './record.js';
import { filesOfLog } from './rotated.js';

/** Options of `readAudit`. */
export interface ReadAuditOptions {
  /** File of the Ed25519 public key (PEM) of whoever signed the log: signatures are checked. */
  readonly key?: string | undefined;
}

/** One recorded item with its header. */
export interface AuditEntry {
  readonly header: AuditHeader;
  readonly record: AuditItem;
  /** Name of the file. */
  readonly file: string;
  /** Line of the file, from 1. */
  readonly line: number;
  /** Times of the item with every block run and under the policy, measured alike; null if it wasn't timed. */
  readonly timed: { readonly full: number; readonly skip: number } | null;
}

/** A problem with a line. */
export interface AuditProblem {
  /** Name of the file. */
  readonly file: string;
  /** Line of the file, from 1. */
  readonly line: number;
  /**
   * `truncated`: the last line is incomplete, as a killed process leaves it; `unfinished`: whoever wrote the lines up to this one didn't
   * close the log, so that items which it had not written yet may be missing; `lost`: items that couldn't be written are missing;
   * `tampered`: anything else.
   */
  readonly kind: 'truncated' | 'unfinished' | 'lost' | 'tampered';
  /** Names the line and what is wrong with it. */
  readonly message: string;
}

/** What an audit log holds. */
export interface AuditTrace {
  /** Recorded items, in the order of the log. */
  readonly entries: readonly AuditEntry[];
  /** Lines that are no records, or were changed, and places where lines are missing. */
  readonly problems: readonly AuditProblem[];
  /** CPU time and energy of items of the last model and policy, from the last measurement; null if there is none. */
  readonly energy: AuditEnergy | null;
  /** Whether the log had earlier lines, in files that were removed or that weren't read. */
  readonly hadEarlier: boolean;
  /** The last signature, and how many items follow it; null if there is none. It is checked if `key` was given. */
  readonly signed: { readonly time: number; readonly key: string; readonly itemsAfter: number } | null;
}

/** Reads the lines of a log one after another. */
class Reader {
  readonly entries: AuditEntry[] = [];
  readonly problems: AuditProblem[] = [];
  energy: AuditEnergy | null = null;
  signed: { time: number; key: string; itemsAfter: number } | null = null;
  header: AuditHeader | undefined;
  hadEarlier = false;
  #file = '';
  #line = 0;
  #link: string | undefined;
  /** Of the last line; a problem unless it is the last of its file. */
  #pending: string | undefined;
  /** Whether the last header's writer may have had more to write. */
  #open = false;
  #lost = 0;

  constructor(private readonly verify: ReturnType<typeof verifier> | undefined) {}

  begin(file: string): void {
    this.#file = file;
    this.#line = 0;
  }

  read(text: string): void {
    this.#settle('tampered');
    this.#line++;
    const decoded = decodeLine(text, this.#link);
    if ('problem' in decoded) {
      this.#pending = `line ${this.#line} is not a record: ${decoded.problem}`;
      return;
    }
    if (!decoded.follows) {
      const line = `line ${this.#line}`;
      this.#report(
        'tampered',
        this.#link === undefined
          ? `${line} was changed: its link doesn't match its text`
          : `${line} doesn't continue the previous line: one of them was changed, removed or inserted`,
      );
    }
    this.#take(decoded.record, this.#link);
    this.#link = decoded.link;
  }

  /** Ends a file. @param whole whether its last line ends in a newline */
  end(whole: boolean): void {
    this.#settle(whole ? 'tampered' : 'truncated');
  }

  /** Ends the log. */
  close(): void {
    // The log goes on in the files after one that it was rotated to.
    if (this.#open && !/\.[1-9]\d*\.[^.]+$/.test(this.#file))
      this.#unfinished(
        `the log ends at line ${this.#line} and was not closed: it is still written, or its process was killed`,
      );
  }

  #take(record: AuditRecord, before: string | undefined): void {
    if (record.type === 'header') this.#begin(record, before);
    else if (!this.header || (record.type === 'full' && this.entries.length === 0 && !this.hadEarlier))
      this.#report('tampered', `line ${this.#line} precedes what it refers to`);
    else if (record.type === 'energy') this.energy = record;
    else if (record.type === 'item') {
      this.entries.push({ header: this.header, record, file: this.#file, line: this.#line, timed: null });
      if (this.signed) this.signed.itemsAfter++;
    } else if (record.type === 'checkpoint') {
      const problem = this.verify?.({ ...record, link: before! });
      if (problem) this.#report('tampered', `line ${this.#line} is no valid signature: ${problem}`);
      else this.signed = { time: record.time, key: record.key, itemsAfter: 0 };
    } else if (record.type === 'end') {
      this.#open = false;
      this.#noteLost(record.lost);
    } else if (record.skipMilliseconds !== undefined && this.entries.at(-1)?.record.run === record.run) {
      const timed = { full: record.milliseconds, skip: record.skipMilliseconds };
      this.entries.push({ ...this.entries.pop()!, timed });
    }
  }

  #begin(header: AuditHeader, before: string | undefined): void {
    if (before === undefined) this.hadEarlier = /[^0]/.test(header.continues);
    const { writer, lost = 0 } = header;
    if (writer !== this.header?.writer) {
      if (this.#open)
        this.#unfinished(`line ${this.#line} is by another process, and the one before didn't close the log`);
      this.#lost = 0;
    }
    this.#noteLost(lost);
    this.#open = writer !== undefined;
    if (!isSameNetwork(this.header, header)) this.energy = null;
    this.header = header;
  }

  #unfinished(what: string): void {
    const last = this.entries.at(-1)?.record;
    const after = last ? `items after run ${last.run} of ${new Date(last.time).toISOString()}` : 'items';
    this.#report('unfinished', `${what}; ${after} that it had not written yet are missing`);
  }

  #noteLost(lost: number): void {
    const more = lost - this.#lost;
    this.#lost = lost;
    if (more > 0)
      this.#report('lost', `before line ${this.#line}, items that couldn't be written are missing: ${more}`);
  }

  #settle(kind: AuditProblem['kind']): void {
    if (this.#pending) this.#report(kind, this.#pending);
    this.#pending = undefined;
  }

  #report(kind: AuditProblem['kind'], message: string): void {
    this.problems.push({ file: this.#file, line: this.#line, kind, message });
  }
}

/**
 * Reads an audit log. Lines that are not valid records are reported and left out; all others are returned.
 * @param path the log's file, or the folder of a log and the files that it was rotated to, which are read as one
 * @throws ResidualSkipError INVALID_DATA when it can't be read or holds no header, INVALID_ARGUMENT for an unusable key
 */
export async function readAudit(path: string, { key }: ReadAuditOptions = {}): Promise<AuditTrace> {
  const reader = new Reader(key === undefined ? undefined : verifier(key));
  try {
    for await (const file of filesAt(path)) {
      reader.begin(basename(file));
      reader.end(await readLines(file, (line) => reader.read(line)));
    }
  } catch (error) {
    if (error instanceof ResidualSkipError) throw error;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `audit log '${path}': it can't be read (${(error as Error).message})`,
      { cause: error },
    );
  }
  reader.close();
  const { entries, problems, energy, signed, hadEarlier, header } = reader;
  if (!header) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `audit log '${path}': it has no header; expected a file that auditLog() wrote`,
    );
  }
  return { entries, problems, energy, signed, hadEarlier };
}

/** The file itself, or the files of the one log in a folder, oldest first, with those that a rotation adds while it is read. */
async function* filesAt(path: string): AsyncGenerator<string> {
  if (!(await stat(path)).isDirectory()) return yield path;
  const names = (await readdir(path)).filter((name) => name.endsWith('.ndjson'));
  const logs = new Set(names.map((name) => name.replace(/(\.[1-9]\d*)?\.ndjson$/, '.ndjson')));
  if (logs.size !== 1) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `folder '${path}': it holds ${logs.size === 0 ? 'no audit log' : `the audit logs ${[...logs].join(', ')}`}; name a folder with one, or a file`,
    );
  }
  const newest = join(path, [...logs][0]!);
  const read = new Set<string>();
  while (!read.has(newest)) {
    const next = filesOfLog(newest).find((file) => !read.has(file));
    if (next === undefined) return;
    read.add(next);
    yield next;
  }
}

/** @returns whether the last line ends in a newline */
async function readLines(path: string, read: (line: string) => void): Promise<boolean> {
  // Not by `readline`, which also ends lines at U+2028, and an id of a client may contain that.
  let rest = '';
  for await (const chunk of createReadStream(path, 'utf8')) {
    // A line may be very long: what is left of it isn't searched again.
    const [first, ...others] = (chunk as string).split('\n') as [string, ...string[]];
    rest += first;
    for (const next of others) {
      read(withoutReturn(rest));
      rest = next;
    }
  }
  if (rest !== '') read(withoutReturn(rest));
  return rest === '';
}

/** As a tool on Windows may have ended the line. */
const withoutReturn = (line: string) => (line.endsWith('\r') ? line.slice(0, -1) : line);

function isSameNetwork(before: AuditHeader | undefined, { model, policy }: AuditHeader): boolean {
  return before?.model.sha256 === model.sha256 && before.policy.sha256 === policy.sha256;
}
