import { constants } from 'node:fs';
import { access, open, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type AuditTrace, type ReadAuditOptions, readAudit } from '../audit/read.js';
import { kindOf } from '../data/files.js';
import { codeOfWriting, ResidualSkipError } from '../errors.js';
import type { Io } from './io.js';
import { plural } from './table.js';

/** The error for a file that could not be written. */
export function unwritable(path: string, why: string, cause?: unknown): ResidualSkipError {
  return new ResidualSkipError(codeOfWriting(cause), `${path} can't be written: ${why}`, { cause });
}

/**
 * Checks before long work that its result can be written to `path`.
 * @throws INVALID_ARGUMENT when `path` is a folder, or its folder is missing or not writable
 */
export async function checkWritable(path: string): Promise<void> {
  if ((await kindOf(path)) === 'folder') throw unwritable(path, 'it is a folder');
  await access(dirname(path), constants.W_OK).catch((cause: unknown) => {
    throw unwritable(path, (cause as Error).message, cause);
  });
}

/**
 * Writes a file completely or not at all: the old content stays until the new one is on disk.
 * @throws INVALID_ARGUMENT, or WRITE_FAILED when the disk is full or fails
 */
export async function writeResult(path: string, content: string | Uint8Array): Promise<void> {
  try {
    const before = await stat(path).catch(() => undefined);
    // A pipe or a device is written to, not replaced.
    if (before && !before.isFile()) await writeFile(path, content);
    else await replaceFile(before ? await realpath(path) : path, content, before?.mode);
  } catch (cause) {
    throw unwritable(path, (cause as Error).message, cause);
  }
}

async function replaceFile(
  path: string,
  content: string | Uint8Array,
  mode: number | undefined,
): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(temporary, 'w', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Reads an audit log; notes its first problem on the error stream, and how many more there are. */
export async function readLog(path: string, io: Io, options?: ReadAuditOptions): Promise<AuditTrace> {
  const trace = await readAudit(path, options);
  const [first, ...more] = trace.problems;
  const others = more.length > 0 ? `; and ${plural(more.length, 'problem')} more` : '';
  const file = first && basename(path) !== first.file ? join(path, first.file) : path;
  if (first) io.err(`note: ${file}: ${first.message}${others}\n`);
  return trace;
}

/**
 * For the end of a command that has read a log. Crashes, full disks and removed old files are part of a log's normal life: what they leave is no failure.
 * @throws ResidualSkipError INVALID_DATA for a log that isn't as it was written
 */
export function checkUntouched(path: string, { problems }: AuditTrace): void {
  const [first, ...more] = problems.filter(({ kind }) => kind === 'tampered');
  if (!first) return;
  const others = more.length > 0 ? `, and ${plural(more.length, 'place')} more` : '';
  throw new ResidualSkipError(
    'INVALID_DATA',
    `${path} is not as it was written (${first.file}: ${first.message}${others}); take a copy that nobody has changed`,
  );
}
