import { createHash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  write,
  writeSync,
} from 'node:fs';
import { extname } from 'node:path';
import { z } from 'zod';
import type { RunContext, RunEvent, RunObserver, TensorMap } from '../skip/observer.js';
import type { BlockDecision, ExitDecision, SkipReason } from '../skip/trace.js';
import type { Tensor } from '../tensor.js';
import { parseStrict } from '../validation.js';
import { type AuditRecord, decodeLine, encodeRecord, FIRST_LINK, shortFloat } from './record.js';
import { softmaxTop } from './top.js';

export interface AuditLogOptions {
  /** File to append to; rotated files stand beside it as NAME.1.EXT, NAME.2.EXT, oldest first. */
  path: string;
  /** Fraction of the items that is recorded, 0 to 1; 1 when left out. */
  sample?: number;
  /** `hash` (when left out) records the SHA-256 of each item's input, which replay needs. */
  inputs?: 'hash' | 'none';
  /** Names of the classes, for the report. */
  labels?: readonly string[];
  /** Size in bytes at which a file is rotated; 64 MiB when left out. */
  maxBytes?: number;
  /** How many of the best classes are recorded; 3 when left out. */
  top?: number;
}

export interface AuditLogStats {
  /** Items written to the file. */
  readonly written: number;
  /** Items that could not be written, or came faster than the disk takes them. */
  readonly lost: number;
  /** Writes that failed. */
  readonly errors: number;
  readonly lastError: string | null;
}

const optionsSchema = z.strictObject({
  path: z.string({ error: 'expected the path of a file' }).min(1),
  sample: z.number().min(0).max(1).optional(),
  inputs: z.enum(['hash', 'none']).optional(),
  labels: z.array(z.string()).readonly().optional(),
  maxBytes: z.int().min(4096).optional(),
  top: z.int().min(1).max(100).optional(),
});

const LETTERS: Record<SkipReason, string> = {
  gate: 'g',
  policy: 'p',
  fixed: 'f',
  tripped: 't',
  exit: 'x',
  guard: 'v',
};

/** Items that wait to be encoded; past that they are counted as lost instead of filling the memory. */
const MOST_WAITING = 4096;

interface Waiting {
  readonly context: RunContext;
  readonly time: number;
  readonly run: number;
  readonly item: number;
  readonly input: readonly Uint8Array[];
  readonly output: readonly Uint8Array[];
  readonly logits: Float32Array | null;
  readonly blocks: readonly BlockDecision[];
  readonly exits: readonly ExitDecision[];
  readonly milliseconds: number;
}

/** An observer that appends what every item did to a file; see auditLog. */
export class AuditLog implements RunObserver {
  readonly #options: Required<Omit<AuditLogOptions, 'labels'>> & { labels: readonly string[] | null };
  #fd: number | undefined;
  #size = 0;
  #link = FIRST_LINK;
  #header: RunContext | undefined;
  #runs = 0;
  #waiting: Waiting[] = [];
  #scheduled = false;
  #writing: Promise<void> = Promise.resolve();
  #stats = { written: 0, lost: 0, errors: 0, lastError: null as string | null };
  readonly #atExit = () => this.#flushSync();

  constructor(options: AuditLogOptions) {
    const known = Object.keys(optionsSchema.shape);
    const parsed = parseStrict(optionsSchema, options, {
      code: 'INVALID_ARGUMENT',
      subject: 'auditLog options',
      known,
    });
    this.#options = {
      sample: 1,
      inputs: 'hash',
      maxBytes: 2 ** 26,
      top: 3,
      ...parsed,
      labels: parsed.labels ?? null,
    };
    process.once('exit', this.#atExit);
  }

  /** Copies what must be kept; hashing, encoding and writing follow once the event loop has a turn free. */
  onRun(event: RunEvent): void {
    const { context, trace, inputs, outputs, milliseconds } = event;
    const run = this.#runs++;
    const { items } = trace;
    const time = Date.now();
    for (const [item, { blocks, exits }] of items.entries()) {
      if (this.#options.sample < 1 && Math.random() >= this.#options.sample) continue;
      if (this.#waiting.length >= MOST_WAITING) {
        this.#stats.lost++;
        continue;
      }
      this.#waiting.push({
        context,
        time,
        run,
        item,
        input: this.#options.inputs === 'hash' ? sliceBytes(inputs, item, items.length) : [],
        output: sliceBytes(outputs, item, items.length),
        logits: firstFloats(outputs, item, items.length),
        blocks,
        exits,
        milliseconds: milliseconds / items.length,
      });
    }
    if (!this.#scheduled && this.#waiting.length > 0) {
      this.#scheduled = true;
      setImmediate(() => this.#drain());
    }
  }

  stats(): { auditLog: AuditLogStats } {
    return { auditLog: { ...this.#stats } };
  }

  /** Writes what is waiting and closes the file. Called when the session is released. */
  async onRelease(): Promise<void> {
    process.off('exit', this.#atExit);
    this.#drain();
    await this.#writing;
    this.#close();
  }

  /** Encodes all that waits as one chunk and hands it to the disk, in order, off the main thread. */
  #drain(): void {
    this.#scheduled = false;
    const batch = this.#waiting;
    this.#waiting = [];
    if (batch.length === 0) return;
    this.#writing = this.#writing.then(() => this.#append(batch));
  }

  async #append(batch: readonly Waiting[]): Promise<void> {
    try {
      const fd = this.#open();
      const [text, link] = this.#encode(batch);
      await writeAll(fd, text);
      this.#wrote(batch.length, text.length, link);
    } catch (error) {
      this.#failed(batch.length, error as Error);
    }
  }

  #flushSync(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    if (batch.length === 0) return;
    try {
      const [text, link] = this.#encode(batch);
      writeSync(this.#open(), text);
      this.#wrote(batch.length, text.length, link);
    } catch (error) {
      this.#failed(batch.length, error as Error);
    }
  }

  #wrote(items: number, bytes: number, link: string): void {
    this.#stats.written += items;
    this.#size += bytes;
    this.#link = link;
    if (this.#size >= this.#options.maxBytes) this.#rotate();
  }

  /** Inference goes on: the first failure is reported, all are counted, and the file is tried again. */
  #failed(items: number, error: Error): void {
    this.#stats.lost += items;
    this.#stats.lastError = error.message;
    if (this.#stats.errors++ === 0) {
      process.emitWarning(
        `the audit log '${this.#options.path}' can't be written (${error.message}); inference goes on, and what is lost is counted in session.stats()`,
        { code: 'RESIDUAL_SKIP_AUDIT' },
      );
    }
    this.#close();
  }

  #encode(batch: readonly Waiting[]): [Buffer, string] {
    let link = this.#link;
    let text = '';
    const add = (record: AuditRecord) => {
      const encoded = encodeRecord(record, link);
      text += encoded.line;
      link = encoded.link;
    };
    for (const waiting of batch) {
      if (this.#header !== waiting.context) {
        this.#header = waiting.context;
        add(this.#headerOf(waiting));
      }
      add(this.#itemOf(waiting));
    }
    return [Buffer.from(text), link];
  }

  #headerOf({ context, time, blocks }: Waiting): AuditRecord {
    const { version, sha256, source, policySha256, backend, isa, threads, multiplyAdds, layers } = context;
    return {
      type: 'header',
      schema: 1,
      time: new Date(time).toISOString(),
      engine: version,
      model: { sha256, source },
      policy: { sha256: policySha256 },
      backend,
      isa,
      threads,
      inputs: this.#options.inputs,
      sample: this.#options.sample,
      labels: this.#options.labels ? [...this.#options.labels] : null,
      multiplyAdds,
      layers,
      blocks: context.blocks.map((block, i) => ({
        name: block.name,
        shortcut: block.shortcut,
        skippable: block.skippable,
        multiplyAdds: block.multiplyAdds,
        layers: block.layers,
        threshold: shortFloat(blocks[i]!.threshold),
      })),
    };
  }

  #itemOf({ time, run, item, input, output, logits, blocks, exits, milliseconds }: Waiting): AuditRecord {
    return {
      type: 'item',
      time,
      run,
      item,
      input: this.#options.inputs === 'hash' ? hashBytes(input) : null,
      ran: blocks.map(({ ran }) => (ran ? '1' : '0')).join(''),
      reasons: blocks.map(({ reason }) => LETTERS[reason]).join(''),
      scores: blocks.map(({ score }) => shortFloat(score)),
      exits: exits.map(({ after, score }) => [after, shortFloat(score)!]),
      output: hashBytes(output),
      top: logits ? softmaxTop(logits, this.#options.top) : [],
      milliseconds: Number(milliseconds.toFixed(4)),
    };
  }

  /** Opens for appending. A half line that a crash left at the end is no record: it is cut off. */
  #open(): number {
    if (this.#fd !== undefined) return this.#fd;
    const fd = openSync(this.#options.path, 'a+');
    try {
      const { size } = fstatSync(fd);
      const { end, link } = lastLine(fd, size);
      if (end < size) ftruncateSync(fd, end);
      this.#fd = fd;
      this.#size = end;
      this.#link = link;
      this.#header = undefined;
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #close(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** The file makes room under the next free number; the new one continues its chain of links. */
  #rotate(): void {
    const { path } = this.#options;
    const link = this.#link;
    this.#close();
    renameSync(path, nextRotated(path));
    this.#open();
    this.#link = link;
  }
}

/**
 * An observer for `InferenceSession.create`: an append-only trace of what every item ran and skipped, why,
 * and what came out. Encoding and writing happen off the hot path; a process that is killed loses at most
 * the lines not yet written. A disk that is full or a path that can't be written never stops inference.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function auditLog(options: AuditLogOptions): AuditLog {
  return new AuditLog(options);
}

/** Hex SHA-256 of one item's tensors, as audit records hold it. */
export function hashItem(tensors: TensorMap, item: number, items: number): string {
  return hashBytes(sliceBytes(tensors, item, items));
}

function hashBytes(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

/** Copies of one item's bytes of each tensor, in name order; a tensor that all items share is taken whole. */
function sliceBytes(tensors: TensorMap, item: number, items: number): Uint8Array[] {
  return Object.keys(tensors)
    .sort()
    .map((name) => {
      const { data, dims } = tensors[name]!;
      const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
      if (dims[0] !== items) return bytes.slice();
      const each = bytes.length / items;
      return bytes.slice(item * each, (item + 1) * each);
    });
}

/** One item's slice of the first float32 output; null when there is none. */
function firstFloats(outputs: TensorMap, item: number, items: number): Float32Array | null {
  const tensor = Object.values(outputs).find(({ type }: Tensor) => type === 'float32');
  if (!tensor) return null;
  const data = tensor.data as Float32Array;
  if (tensor.dims[0] !== items) return data.slice();
  const each = data.length / items;
  return data.slice(item * each, (item + 1) * each);
}

function writeAll(fd: number, bytes: Buffer, from = 0): Promise<void> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, from, bytes.length - from, null, (error, written) => {
      if (error) reject(error);
      else resolve(from + written < bytes.length ? writeAll(fd, bytes, from + written) : undefined);
    });
  });
}

/** Where the last whole line of a file ends, and its link. */
function lastLine(fd: number, size: number): { end: number; link: string } {
  for (let chunk = 64 * 1024; ; chunk *= 4) {
    const start = Math.max(0, size - chunk);
    const bytes = Buffer.alloc(size - start);
    readSync(fd, bytes, 0, bytes.length, start);
    const end = bytes.lastIndexOf(10) + 1;
    const begin = end > 1 ? bytes.lastIndexOf(10, end - 2) + 1 : 0;
    if ((end > 0 && begin > 0) || start === 0) {
      const decoded = decodeLine(bytes.toString('utf8', begin, Math.max(begin, end - 1)), FIRST_LINK);
      return { end: start + end, link: 'link' in decoded ? decoded.link : FIRST_LINK };
    }
  }
}

function nextRotated(path: string): string {
  const extension = extname(path);
  const stem = path.slice(0, path.length - extension.length);
  for (let number = 1; ; number++) {
    const candidate = `${stem}.${number}${extension}`;
    try {
      closeSync(openSync(candidate, 'wx'));
      return candidate;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}
