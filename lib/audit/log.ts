import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { EnergyReport } from '../bench/energy.js';
import { ResidualSkipError } from '../errors.js';
import type { RunContext, RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import type { SkipReason } from '../skip/trace.js';
import type { Tensor } from '../tensor.js';
import { parseStrict } from '../validation.js';
import { LogFile } from './file.js';
import { type AuditHeader, type AuditItem, type AuditRecord, encodeRecord, shortFloat } from './record.js';
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
  /** Items of writes that failed (the first of them may stand in the file), or that came faster than the disk takes them. */
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

/** Bytes of tensors that wait to be hashed; past that they are hashed at once, on the hot path. */
const MOST_WAITING_BYTES = 2 ** 24;

interface Waiting {
  readonly time: number;
  readonly run: number;
  readonly item: number;
  readonly input: readonly Uint8Array[];
  readonly output: readonly Uint8Array[];
  readonly logits: Float32Array | null;
  /** Its trace is built only when the item is encoded, off the hot path. */
  readonly event: RunEvent;
}

/** An observer that appends what every item did to a file; see auditLog. */
export class AuditLog implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: Required<Omit<AuditLogOptions, 'labels'>> & { labels: readonly string[] | null };
  readonly #file: LogFile;
  #control: SessionControl | undefined;
  #header: RunContext | undefined;
  #runs = 0;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  /** What waits is encoded in a later turn of the event loop, after which this is resolved. */
  #later: Promise<void> | undefined;
  #stats = { written: 0, lost: 0, errors: 0, lastError: null as string | null };
  readonly #atExit = () => {
    this.#drain();
    this.#file.closeNow();
  };

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
    this.#file = new LogFile(this.#options.path, this.#options.maxBytes, {
      written: (items) => {
        this.#stats.written += items;
      },
      failed: (items, error) => this.#failed(items, error),
    });
    process.once('exit', this.#atExit);
  }

  onAttach(control: SessionControl): void {
    this.#control = control;
  }

  /**
   * Keeps what is needed; hashing, encoding and writing follow once the event loop has a turn free, which is while
   * the next run is under way.
   * @returns when `event.inputs` are no longer needed
   */
  onRun(event: RunEvent): Promise<void> | undefined {
    const { inputs, inputsKept, outputs, items } = event;
    const run = this.#runs++;
    const time = Date.now();
    for (let item = 0; item < items; item++) {
      if (this.#options.sample < 1 && Math.random() >= this.#options.sample) continue;
      const input = this.#options.inputs === 'hash' ? bytesOf(inputs, item, items, !inputsKept) : [];
      const output = bytesOf(outputs, item, items, true);
      const logits = firstFloats(outputs, item, items);
      this.#waiting.push({ time, run, item, input, output, logits, event });
      for (const { length } of [...input, ...output]) this.#waitingBytes += length;
      // Synchronous runs leave the event loop no turn.
      if (this.#waitingBytes > MOST_WAITING_BYTES) this.#drain();
    }
    if (this.#waiting.length > 0) this.#later ??= this.#drainLater();
    return this.#later;
  }

  /**
   * Runs one item in full, unseen by observers, and records its time, so that the report can tell what skipping
   * saves. The item must be the one run last, and no other run under way.
   * @throws ResidualSkipError INVALID_ARGUMENT before a session has this observer, and what `run` throws
   */
  async timeFull(feeds: TensorMap): Promise<void> {
    if (!this.#control || this.#runs === 0) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'timeFull needs an item before it; hand the log to InferenceSession.create and run the item first',
      );
    }
    const run = this.#runs - 1;
    const start = performance.now();
    await this.#control.runFull(feeds);
    const milliseconds = Number((performance.now() - start).toFixed(4));
    this.#drain();
    // Without a header there is no item that it could belong to.
    if (!this.#file.fresh) this.#add({ type: 'full', time: Date.now(), run, milliseconds }, 0);
  }

  /** Records what items took of the processor both ways, as `record` measures it, for the report. */
  recordEnergy({ items, cpuSeconds, joules }: EnergyReport): void {
    this.#drain();
    // Without a header nothing says which model it belongs to.
    if (!this.#file.fresh) this.#add({ type: 'energy', time: Date.now(), items, cpuSeconds, joules }, 0);
  }

  stats(): { auditLog: AuditLogStats } {
    return { auditLog: { ...this.#stats } };
  }

  /** Writes what is waiting and closes the file. Called when the session is released. */
  async onRelease(): Promise<void> {
    process.off('exit', this.#atExit);
    this.#drain();
    await this.#file.close();
  }

  #drainLater(): Promise<void> {
    return new Promise((resolve) => {
      setImmediate(() => {
        this.#later = undefined;
        this.#drain();
        resolve();
      });
    });
  }

  #drain(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (const [i, waiting] of batch.entries()) {
      try {
        this.#file.open();
      } catch (error) {
        this.#failed(batch.length - i, error as Error);
        return;
      }
      if (this.#file.fresh || this.#header !== waiting.event.context) {
        this.#header = waiting.event.context;
        this.#add(this.#headerOf(waiting), 0);
      }
      this.#add(this.#itemOf(waiting), 1);
    }
  }

  #add(record: AuditRecord, items: number): void {
    this.#file.add(items, (link) => encodeRecord(record, link));
  }

  /** Inference goes on: the first failure is reported, all are counted, and the file is tried again. */
  #failed(items: number, error: Error): void {
    this.#header = undefined;
    this.#stats.lost += items;
    this.#stats.lastError = error.message;
    if (this.#stats.errors++ > 0) return;
    process.emitWarning(
      `the audit log '${this.#options.path}' can't be written (${error.message}); inference goes on, and what is lost is counted in session.stats()`,
      { code: 'RESIDUAL_SKIP_AUDIT' },
    );
  }

  #headerOf({ time, item, event: { context, trace } }: Waiting): AuditHeader {
    const { blocks } = trace.items[item]!;
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

  #itemOf({ time, run, item, input, output, logits, event }: Waiting): AuditItem {
    const { blocks, exits } = event.trace.items[item]!;
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
      milliseconds: Number((event.milliseconds / event.items).toFixed(4)),
    };
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
  return hashBytes(bytesOf(tensors, item, items, false));
}

function hashBytes(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

/** One item's bytes of each tensor, in name order; a tensor that all items share is taken whole. */
function bytesOf(tensors: TensorMap, item: number, items: number, copy: boolean): Uint8Array[] {
  return Object.keys(tensors)
    .sort()
    .map((name) => {
      const { data, dims } = tensors[name]!;
      const { buffer, byteOffset, byteLength } = data as Float32Array;
      const whole = dims[0] !== items;
      const each = whole ? byteLength : byteLength / items;
      const bytes = new Uint8Array(buffer, byteOffset + (whole ? 0 : item * each), each);
      return copy ? bytes.slice() : bytes;
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
