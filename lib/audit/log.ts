import { z } from 'zod';
import type { EnergyReport } from '../bench/energy.js';
import { ResidualSkipError } from '../errors.js';
import type { RunContext, RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import { copyData, type TensorData } from '../tensor.js';
import { parseStrict } from '../validation.js';
import { LogFile } from './file.js';
import { partsOf } from './hash.js';
import { hashItems, headerOf, type Recorded, writeItem } from './items.js';
import { LineText } from './line.js';
import type { AuditRecord } from './record.js';

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

/** Items that are encoded together, and bytes of their tensors: with more, it is done in the next turn of the event loop. */
const BATCH_ITEMS = 8;
const BATCH_BYTES = 2 ** 18;
/** Fewer are encoded after a while. */
const BATCH_MS = 5;
/** Bytes of tensors that wait to be hashed; past that they are hashed at once, on the hot path. */
const MOST_WAITING_BYTES = 2 ** 24;

/** A call that is made after BATCH_MS, or in the next turn of the event loop once it hurries. */
class Later {
  readonly done: Promise<void>;
  #resolve: () => void = () => {};
  readonly #timer: NodeJS.Timeout;
  #turn: NodeJS.Immediate | undefined;

  constructor(private readonly call: () => void) {
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setTimeout(call, BATCH_MS).unref();
  }

  hurry(): void {
    this.#turn ??= setImmediate(this.call);
  }

  /** The call is not made any more: what it was for is done. */
  end(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#turn);
    this.#resolve();
  }
}

/** An observer that appends what every item did to a file; see auditLog. */
export class AuditLog implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: Required<Omit<AuditLogOptions, 'labels'>> & { labels: readonly string[] | null };
  readonly #file: LogFile;
  readonly #line = new LineText();
  #control: SessionControl | undefined;
  #header: RunContext | undefined;
  #runs = 0;
  #waiting: Recorded[] = [];
  #waitingBytes = 0;
  /** What waits is encoded in a later turn of the event loop. */
  #later: Later | undefined;
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
    const { sample, inputs: recorded } = this.#options;
    const run = this.#runs++;
    const time = Date.now();
    for (let item = 0; item < items; item++) {
      if (sample < 1 && Math.random() >= sample) continue;
      const input = recorded === 'none' ? null : partsOf(inputs, item, items);
      const output = partsOf(outputs, item, items).map(copyData);
      const waiting = {
        time,
        run,
        item,
        input: inputsKept ? input : (input?.map(copyData) ?? null),
        output,
        event,
      };
      this.#waiting.push(waiting);
      this.#waitingBytes += sizeOf(waiting.input ?? []) + sizeOf(output);
      // Synchronous runs leave the event loop no turn.
      if (this.#waitingBytes > MOST_WAITING_BYTES) this.#drain();
    }
    if (this.#waiting.length === 0) return undefined;
    this.#later ??= new Later(() => this.#drain());
    if (this.#waiting.length >= BATCH_ITEMS || this.#waitingBytes >= BATCH_BYTES) this.#later.hurry();
    return this.#later.done;
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
    if (!this.#file.fresh) this.#add({ type: 'full', time: Date.now(), run, milliseconds });
  }

  /** Records what items took of the processor both ways, as `record` measures it, for the report. */
  recordEnergy({ items, cpuSeconds, joules }: EnergyReport): void {
    this.#drain();
    // Without a header nothing says which model it belongs to.
    if (!this.#file.fresh) this.#add({ type: 'energy', time: Date.now(), items, cpuSeconds, joules });
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

  #drain(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#later?.end();
    this.#later = undefined;
    const hashes = hashItems(batch);
    for (const [i, waiting] of batch.entries()) {
      try {
        this.#file.open();
      } catch (error) {
        this.#failed(batch.length - i, error as Error);
        return;
      }
      if (this.#file.fresh || this.#header !== waiting.event.context) {
        this.#header = waiting.event.context;
        this.#add(headerOf(waiting, { ...this.#options, continues: this.#file.link }));
      }
      this.#line.clear();
      writeItem(this.#line, waiting, hashes[i]!, this.#options.top);
      this.#file.add(1, this.#line);
    }
  }

  /** Adds a record that stands for no item. */
  #add(record: AuditRecord): void {
    this.#line.clear();
    this.#line.json(record);
    this.#file.add(0, this.#line);
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

function sizeOf(parts: readonly TensorData[]): number {
  let bytes = 0;
  for (const { byteLength } of parts) bytes += byteLength;
  return bytes;
}
