import {
  closeSync,
  existsSync,
  fstatSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  openSync,
  rename,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { type Chunk, LineBuffer, NO_CHUNK } from './line-buffer.js';
import { FIRST_LINK, linkAtEnd } from './record.js';
import { begunAt, lastLine, linkBefore, nextRotated, type Retention, removeRotated } from './rotated.js';
import { waitForSize, writeAll } from './write.js';

/** When a file is rotated, and what is kept of those that it was rotated to. */
export interface LogFileLimits extends Retention {
  /** In bytes. */
  readonly maxBytes: number;
  /** In milliseconds; undefined: whatever its age. */
  readonly maxAge?: number | undefined;
}

/** Notifications of a log file to its owner. */
export interface LogFileEvents {
  written(items: number): void;
  failed(items: number, error: Error): void;
  /** Of files that the log, or another of `keepWithin`, was rotated to. */
  removed(files: number): void;
}

/** Milliseconds after which less than a chunk is written. */
const FLUSH_MS = 100;
/** Most bytes of encoded lines that may wait for a slow disk; further lines are lost instead of filling the memory. */
const MAX_BYTES = 2 ** 26;

/** Number of new files so far, for their temporary names. */
let begun = 0;

/**
 * A file to which threads of libuv append lines in order. It belongs to one process at a time. A new file gets its
 * name once its header is on the disk. A failed write drops the waiting lines; the next line reopens the file and
 * removes the incomplete line at its end.
 */
export class LogFile {
  /** Link of the last appended line, and the size of the file once everything is written. */
  #link = FIRST_LINK;
  #size = 0;
  /** When the file was begun, in milliseconds since 1970. */
  #born = 0;
  #fd: number | undefined;
  /** The name of a new file until its header is on the disk. */
  #temporary: string | undefined;
  /** Lines that are not in a chunk yet. */
  readonly #lines = new LineBuffer();
  #chunks: Chunk[] = [];
  #chunkBytes = 0;
  #busy: Chunk | undefined;
  /** Size of the file before the chunk that is being written. */
  #before = 0;
  #timer: NodeJS.Timeout | undefined;
  #idle: (() => void)[] = [];
  #closings = 0;
  /** Link at the end of the files that were removed, while there was no other. */
  #removedLink = FIRST_LINK;

  constructor(
    readonly path: string,
    readonly limits: LogFileLimits,
    readonly events: LogFileEvents,
  ) {}

  /** Whether the next line begins a file or follows a failure, and so needs a header first. */
  get fresh(): boolean {
    return this.#fd === undefined || this.#size === 0;
  }

  get isOpen(): boolean {
    return this.#fd !== undefined;
  }

  /** Items that are appended and not written yet. */
  get waiting(): number {
    const busy = this.#busy?.items ?? 0;
    return this.#chunks.reduce((sum, { items }) => sum + items, busy + this.#lines.items);
  }

  /** Link of the last appended line. */
  get link(): string {
    return this.#link;
  }

  /** How often the file was closed, for good or after a failure, which drops the waiting lines. */
  get closings(): number {
    return this.#closings;
  }

  /** Prepares the file for `append`. @throws the file system's error */
  open(): void {
    if (this.#fd !== undefined) return;
    this.#expire();
    if (!existsSync(this.path)) {
      this.#begin();
      this.#size = 0;
      const link = linkBefore(this.path);
      this.#link = link === FIRST_LINK ? this.#removedLink : link;
      return;
    }
    const fd = openSync(this.path, 'a+');
    try {
      const { size } = fstatSync(fd);
      const { end, link, missing } = lastLine(fd, size);
      if (end < size) ftruncateSync(fd, end);
      writeSync(fd, missing);
      this.#fd = fd;
      this.#size = end + missing.length;
      this.#before = this.#size;
      this.#born = begunAt(fd) ?? Date.now();
      this.#link = link;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Appends whole lines that hold `items` items and continue the last link. Call it between a successful `open` and
   * the next change of `closings`.
   */
  append(items: number, lines: Uint8Array): void {
    if (this.#chunkBytes > MAX_BYTES) {
      this.events.failed(items, new Error('the disk is slower than the stream'));
      return;
    }
    this.#link = linkAtEnd(lines);
    const begins = this.#size === 0;
    if (begins) this.#born = Date.now();
    this.#size += lines.length;
    this.#lines.add(items, lines, begins);
    const full = (this.#size >= this.limits.maxBytes || this.#isOld()) && items > 0;
    if (full || this.#lines.isFull) this.#seal(full);
    else this.#timer ??= setTimeout(() => this.#seal(false), FLUSH_MS).unref();
  }

  /** For a log that may be idle: rotates a file that is too old, and removes those that are too old to keep. */
  tend(): void {
    const idle = this.#busy === undefined && this.#lines.isEmpty;
    if (this.#fd !== undefined && this.#size > 0 && idle && this.#isOld()) {
      this.#size = 0;
      this.#rotate();
    } else this.#expire();
  }

  /** Waits until everything is written, and closes the file. */
  async close(): Promise<void> {
    this.#seal(false);
    while (this.#busy) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.#shut();
  }

  /** Like `close`, for a process that ends: without the event loop. */
  closeNow(): void {
    this.#timer = void clearTimeout(this.#timer);
    const fd = this.#fd;
    if (fd === undefined) return;
    try {
      const text = Buffer.concat([...this.#chunks.map(({ bytes }) => bytes), this.#lines.bytes]);
      // A write in progress has its own thread, which still runs.
      if (this.#busy) waitForSize(fd, this.#before + this.#busy.bytes.length);
      writeSync(fd, text);
      if (!this.#temporary) return;
      if (fstatSync(fd).size === 0) {
        rmSync(this.#temporary, { force: true });
        return;
      }
      fsyncSync(fd);
      // That thread may also be renaming it.
      if (!existsSync(this.path)) renameSync(this.#temporary, this.path);
    } catch (error) {
      this.events.failed(
        this.#lines.items + this.#chunks.reduce((sum, { items }) => sum + items, 0),
        error as Error,
      );
    }
  }

  #isOld(): boolean {
    const { maxAge } = this.limits;
    return maxAge !== undefined && Date.now() - this.#born >= maxAge;
  }

  #expire(): void {
    const { keep, keepBytes } = this.limits;
    if (keep === undefined && keepBytes === undefined) return;
    try {
      if (!this.isOpen && !existsSync(this.path)) this.#removedLink = linkBefore(this.path);
      this.events.removed(removeRotated(this.path, this.limits));
    } catch (error) {
      this.events.failed(0, error as Error);
    }
  }

  /** Creates a new file. @throws the file system's error */
  #begin(): void {
    const name = `${this.path}.${process.pid}-${++begun}.tmp`;
    this.#fd = openSync(name, 'ax');
    this.#temporary = name;
    this.#before = 0;
  }

  #seal(last: boolean): void {
    this.#timer = void clearTimeout(this.#timer);
    if (this.#lines.isEmpty) return;
    for (const chunk of this.#lines.seal(last)) {
      this.#chunks.push(chunk);
      this.#chunkBytes += chunk.bytes.length;
    }
    // The next file begins with the line that continues this one.
    if (last) this.#size = 0;
    if (!this.#busy) this.#next();
  }

  #next(): void {
    const chunk = this.#chunks.shift();
    this.#busy = chunk;
    if (!chunk) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#chunkBytes -= chunk.bytes.length;
    writeAll(this.#fd!, chunk.bytes, 0, (error) => {
      if (error) {
        this.#fail(chunk.items, error);
        return;
      }
      this.#before += chunk.bytes.length;
      this.#lines.reuse(chunk);
      this.events.written(chunk.items);
      if (chunk.last) this.#rotate();
      if (this.#temporary && this.#before > 0) this.#name(this.#temporary);
      else this.#next();
    });
  }

  /** Gives a new file its name, now that it has a header. */
  #name(temporary: string): void {
    // Still busy, but with nothing left to write.
    this.#busy = NO_CHUNK;
    const named = (error: Error | null) => {
      if (error) {
        this.#fail(0, error);
        return;
      }
      this.#temporary = undefined;
      this.#next();
    };
    fsync(this.#fd!, (error) => {
      if (error) named(error);
      else if (existsSync(this.path)) named(new Error('another process has created it meanwhile'));
      else rename(temporary, this.path, named);
    });
  }

  /** Drops everything that waits: its links continue a line that doesn't exist. */
  #fail(items: number, error: Error): void {
    const lost = this.#chunks.reduce((sum, chunk) => sum + chunk.items, items + this.#lines.items);
    this.#chunks = [];
    this.#chunkBytes = 0;
    this.#lines.clear();
    this.#shut();
    this.events.failed(lost, error);
    this.#next();
  }

  #shut(): void {
    this.#timer = void clearTimeout(this.#timer);
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    if (this.#temporary) rmSync(this.#temporary, { force: true });
    this.#temporary = undefined;
    this.#fd = undefined;
    this.#closings++;
  }

  /** Renames the file to the next free number; if that fails, the file keeps growing. */
  #rotate(): void {
    try {
      renameSync(this.path, nextRotated(this.path));
      const written = this.#fd!;
      this.#begin();
      closeSync(written);
      this.#expire();
    } catch (error) {
      this.events.failed(0, error as Error);
    }
  }
}
