/** The files of one log: the one that grows, and those that it was rotated to, NAME.1.EXT, NAME.2.EXT, ..., oldest first. */
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { decodeLine, FIRST_LINK, wholeLink } from './record.js';

/** Folder of the stored inputs of a log, beside it. */
export const INPUTS = 'inputs';

/** Bytes in which the header at the start of a file is expected. */
const HEADER_BYTES = 2 ** 20;

/** The files that a log was rotated to, oldest first. */
export function rotatedFiles(path: string): string[] {
  const extension = extname(path);
  const stem = basename(path, extension);
  const numbered = readdirSync(dirname(path)).flatMap((name) => {
    if (!name.startsWith(`${stem}.`) || !name.endsWith(extension)) return [];
    const digits = name.slice(stem.length + 1, name.length - extension.length);
    return /^[1-9]\d{0,14}$/.test(digits) ? [{ name, number: Number(digits) }] : [];
  });
  return numbered.sort((a, b) => a.number - b.number).map(({ name }) => join(dirname(path), name));
}

/** All files of a log, oldest first. */
export function filesOfLog(path: string): string[] {
  return [...rotatedFiles(path), ...(existsSync(path) ? [path] : [])];
}

/** Creates the file that a log is to be renamed to: its number is above all others, which may have been removed. */
export function nextRotated(path: string): string {
  const extension = extname(path);
  const stem = path.slice(0, path.length - extension.length);
  const last = rotatedFiles(path).at(-1);
  const used = last === undefined ? 0 : Number(last.slice(stem.length + 1, last.length - extension.length));
  for (let number = used + 1; ; number++) {
    const candidate = `${stem}.${number}${extension}`;
    try {
      closeSync(openSync(candidate, 'wx'));
      return candidate;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** What is kept of the files that a log was rotated to. */
export interface Retention {
  /** In milliseconds since their last line; undefined: forever. */
  readonly keep?: number | undefined;
  /** Of all files of the log together; undefined: without limit. The newest file stays. */
  readonly keepBytes?: number | undefined;
  /** Folder whose logs of this name `keepBytes` counts together; undefined: this log. */
  readonly keepWithin?: string | undefined;
}

/**
 * Removes files that the log, and those that share its limit, were rotated to, oldest first.
 * @returns how many
 */
export function removeRotated(path: string, { keep, keepBytes, keepWithin }: Retention): number {
  let removed = keep === undefined ? 0 : removeBefore(path, Date.now() - keep);
  if (keepBytes === undefined) return removed;
  const logs = keepWithin === undefined ? [filesOfLog(path)] : logsWithin(keepWithin, basename(path));
  const lists = logs.map((files) => files.map((file) => ({ file, ...sizeAndTime(file) })));
  let total = lists.flat().reduce((sum, { size }) => sum + size, 0);
  while (total > keepBytes) {
    const oldest = lists.filter(({ length }) => length > 1).sort(([a], [b]) => a!.time - b!.time)[0];
    if (!oldest) break;
    const { file, size } = oldest.shift()!;
    rmSync(file, { force: true });
    total -= size;
    removed++;
  }
  return removed;
}

/** Those whose last line was written before `time`, in milliseconds since 1970. */
function removeBefore(path: string, time: number): number {
  let removed = 0;
  for (const file of rotatedFiles(path)) {
    // What is kept is the end of the chain of links.
    if (sizeAndTime(file).time >= time) break;
    rmSync(file, { force: true });
    removed++;
  }
  return removed;
}

function sizeAndTime(file: string): { size: number; time: number } {
  // Another process may have removed it.
  const found = statSync(file, { throwIfNoEntry: false });
  return { size: found?.size ?? 0, time: found?.mtimeMs ?? 0 };
}

/** The files of each log of this name in a folder and those below it, oldest first. */
function logsWithin(folder: string, name: string): string[][] {
  const own = filesOfLog(join(folder, name));
  const isLog = own.length > 0;
  const below = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !(isLog && entry.name === INPUTS))
    .flatMap((entry) => logsWithin(join(folder, entry.name), name));
  return isLog ? [own, ...below] : below;
}

/** Link of the last line of the file that a log was last rotated to; the first link of all if there is none. */
export function linkBefore(path: string): string {
  const last = rotatedFiles(path).at(-1);
  if (last === undefined) return FIRST_LINK;
  const fd = openSync(last, 'r');
  try {
    return lastLine(fd, fstatSync(fd).size).link;
  } finally {
    closeSync(fd);
  }
}

/** When a log's file was begun, by its first line; undefined if that is no header. */
export function begunAt(fd: number): number | undefined {
  const bytes = Buffer.alloc(Math.min(HEADER_BYTES, fstatSync(fd).size));
  readSync(fd, bytes, 0, bytes.length, 0);
  const decoded = decodeLine(bytes.toString('utf8', 0, Math.max(0, bytes.indexOf(10))));
  if (!('record' in decoded) || decoded.record.type !== 'header') return undefined;
  return Date.parse(decoded.record.time);
}

/** The end of the last whole line of a file, its link, and a newline if only that is missing. */
export function lastLine(fd: number, size: number): { end: number; link: string; missing: '' | '\n' } {
  for (let chunk = 64 * 1024; ; chunk *= 4) {
    const start = Math.max(0, size - chunk);
    const bytes = Buffer.alloc(size - start);
    readSync(fd, bytes, 0, bytes.length, start);
    const end = bytes.lastIndexOf(10) + 1;
    const begin = end > 1 ? bytes.lastIndexOf(10, end - 2) + 1 : 0;
    if ((end > 0 && begin > 0) || start === 0) {
      const tail = decodeLine(bytes.toString('utf8', end));
      if ('link' in tail) return { end: size, link: wholeLink(tail.link), missing: '\n' };
      const decoded = decodeLine(bytes.toString('utf8', begin, Math.max(begin, end - 1)));
      const link = 'link' in decoded ? wholeLink(decoded.link) : FIRST_LINK;
      return { end: start + end, link, missing: '' };
    }
  }
}
