import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import type { RunContext, RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import { copyData } from '../tensor/tensor.js';
import { parseStrict } from '../util/validation.js';
import { type Before, ItemBatch } from './batch.js';
import { LogFile } from './file.js';
import { partsOf } from './hash.js';
import { headerOf, type Recorded } from './items.js';
import { type AuditEnergy, type AuditRecord, encodeRecord } from './record.js';

/** Options of `auditLog`. */
export interface AuditLogOptions {
  /** File to append to; rotated files are beside it as NAME.1.EXT, NAME.2.EXT, oldest first. */
  path: string;
  /** Fraction of the items to record, 0 to 1; 1 by default. */
  sample?: number | undefined;
  /** `hash` (the default) records the SHA-256 of each item's input, which replay needs. */
  inputs?: 'hash' | 'none' | undefined;
  /** Names of the classes, for the report. */
  labels?: readonly string[] | undefined;
  /** Size in bytes at which a file is rotated, which it may exceed by some lines; 64 MiB by default. */
  maxBytes?: number | undefined;
  /** Number of best classes to record; 3 by default. */
  top?: number | undefined;
}

/** What an audit log has written and lost. */
export interface AuditLogStats {
  /** Items written to the file. */
  readonly written: number;
  /**
   * Items of failed writes (the first of them may be in the file), or that came faster than the disk could take them.
   */
  readonly lost: number;
  /** Writes that failed. */
  readonly errors: number;
  /** Message of the last write that failed; null if none has. */
  readonly lastError: string | null;
}

declare module '../skip/observer.js' {
  interface SessionStats {
    readonly auditLog?: AuditLogStats;
    readonly [another: `auditLog${number}`]: AuditLogStats | undefined;
  }
}

const optionsSchema = z.strictObject({
  path: z.string({ error: 'expected the path of a file' }).min(1),
  sample: z.number().min(0).max(1).optional(),
  inputs: z.enum(['hash', 'none']).optional(),
  labels: z.array(z.string()).readonly().optional(),
  maxBytes: z.int().min(4096).optional(),
  top: z.int().min(1).max(100).optional(),
});

/** Bytes of tensors to encode in the next turn of the event loop, as with a full batch. */
const BATCH_BYTES = 2 ** 19;
/** Less is encoded after this time. */
const BATCH_MS = 20;
/** Most bytes of tensors that may wait; beyond that, encoding happens at once, on the hot path. */
const MAX_WAITING_BYTES = 2 ** 24;

/** A call after BATCH_MS, or in the next turn of the event loop if it is urgent. */
class Later {
  readonly done: Promise<void>;
  #resolve: () => void = () => {};
  readonly #timer: NodeJS.Timeout;
  #turn: NodeJS.Immediate | undefined;
  #due = false;

  constructor(private readonly call: () => void) {
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setTimeout(() => {
      this.#due = true;
      call();
    }, BATCH_MS).unref();
  }

  /** Whether BATCH_MS have passed. */
  get due(): boolean {
    return this.#due;
  }

  hurry(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      this.call();
    });
  }

  /** Cancels the call: its work is done. */
  end(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#turn);
    this.#resolve();
  }
}

/** Logs with items that may not be written yet. One listener serves all of them. */
const unwritten = new Set<AuditLog>();

function writeAll(): void {
  for (const log of unwritten) log.closeNow();
}

/** An observer that appends what every item did to a file; see auditLog. */
export class AuditLog implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: Required<Omit<AuditLogOptions, 'labels'>> & { labels: readonly string[] | null };
  readonly #file: LogFile;
  #control: SessionControl | undefined;
  #header: RunContext | undefined;
  #runs = 0;
  /** Whether the last item was recorded. */
  #recordedLast = false;
  #timings = 0;
  #waiting: ItemBatch[] = [];
  /** Encodes waiting items in a later turn of the event loop. */
  #later: Later | undefined;
  /** The batch that is being encoded, before those that wait. */
  #underway: ItemBatch | undefined;
  #stats = { written: 0, lost: 0, errors: 0, lastError: null as string | null };

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
  }

  onAttach(control: SessionControl): void {
    this.#control = control;
  }

  /**
   * Keeps what is needed. A batch of items is hashed and encoded during the next run, or between runs, and written by
   * other threads.
   * @returns when `event.inputs` are no longer needed
   */
  onRun(event: RunEvent): Promise<void> | undefined {
    const { inputs, inputsKept, outputs, items } = event;
    const { sample, inputs: recorded } = this.#options;
    const run = this.#runs++;
    const time = Date.now();
    for (let item = 0; item < items; item++) {
      this.#recordedLast = sample === 1 || Math.random() < sample;
      if (!this.#recordedLast) continue;
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
      this.#keep(waiting);
    }
    if (this.#waiting.length === 0) return undefined;
    this.#later ??= new Later(() => this.#encode());
    if (this.#enough()) this.#later.hurry();
    return this.#later.done;
  }

  /**
   * Runs one item in full and under the policy, unseen by observers, and records both times, so that the report can
   * show what skipping saves. The two alternate in being first. The item must be the one that ran last, with no other
   * run in progress. Does nothing if that item is not in the sample.
   * @throws ResidualSkipError INVALID_ARGUMENT before a session has this observer, and what `run` throws
   */
  async timeFull(feeds: TensorMap): Promise<void> {
    if (!this.#control || this.#runs === 0) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'timeFull: no session has this log; pass it to InferenceSession.create and run the item first',
      );
    }
    if (!this.#recordedLast) return;
    const run = this.#runs - 1;
    const control = this.#control;
    const timed = async (which: 'runFull' | 'runAgain') => {
      const start = performance.now();
      await control[which](feeds);
      return Number((performance.now() - start).toFixed(4));
    };
    // The second run finds warmer caches.
    const fullFirst = this.#timings++ % 2 === 0;
    const before = fullFirst ? undefined : await timed('runAgain');
    const milliseconds = await timed('runFull');
    const skipMilliseconds = before ?? (await timed('runAgain'));
    this.#drain();
    // Without a header there is no item that the record could belong to.
    if (!this.#file.fresh) this.#add({ type: 'full', time: Date.now(), run, milliseconds, skipMilliseconds });
  }

  /** Records the CPU time and energy of items both ways, as `record` measures them, for the report. */
  recordEnergy({ items, cpuSeconds, joules }: Omit<AuditEnergy, 'type' | 'time'>): void {
    this.#drain();
    // Without a header the record would belong to no model.
    if (!this.#file.fresh) this.#add({ type: 'energy', time: Date.now(), items, cpuSeconds, joules });
  }

  stats(): { auditLog: AuditLogStats } {
    return { auditLog: { ...this.#stats } };
  }

  /** Writes what waits and closes the file. Called when the session is released. */
  async onRelease(): Promise<void> {
    this.#drain();
    await this.#file.close();
    unwritten.delete(this);
    if (unwritten.size === 0) process.off('exit', writeAll);
  }

  /** Like onRelease, for a process that ends: without the event loop. */
  closeNow(): void {
    this.#drain();
    this.#file.closeNow();
  }

  #keep(item: Recorded): void {
    if (unwritten.size === 0) process.on('exit', writeAll);
    unwritten.add(this);
    const last = this.#waiting.at(-1);
    const { context } = item.event;
    if (!last || last.full || last.context !== context) {
      const { maxBytes } = this.#options;
      this.#waiting.push(new ItemBatch(context, item, maxBytes, this.#control?.auditLines));
    } else {
      last.add(item);
    }
    // Synchronous runs give the event loop no turn.
    if (this.#waitingBytes() > MAX_WAITING_BYTES) this.#drain();
  }

  #waitingBytes(): number {
    let bytes = 0;
    for (const batch of this.#waiting) bytes += batch.bytes;
    return bytes;
  }

  #enough(): boolean {
    return this.#waiting[0]?.full === true || this.#waitingBytes() >= BATCH_BYTES;
  }

  /** Starts to encode what waits. Batches follow one another: each continues the previous link. */
  #encode(): void {
    if (this.#underway) return;
    const before = this.#before();
    if (!before) return;
    const batch = this.#waiting.shift()!;
    this.#underway = batch;
    const { closings } = this.#file;
    const later = this.#waiting.length === 0 ? this.#later : undefined;
    if (later) this.#later = undefined;
    const ended = (lines?: Uint8Array) => {
      // Otherwise this batch and the waiting ones were encoded at once meanwhile.
      if (this.#underway === batch) {
        // If the line that they continue was lost, or the session was released, they are encoded again.
        if (lines === undefined || this.#file.closings !== closings) {
          this.#drain();
        } else {
          this.#underway = undefined;
          this.#append(batch, lines);
        }
      }
      later?.end();
      if (this.#later && (this.#later.due || this.#enough())) this.#later.hurry();
    };
    batch.encode(before).then(ended, () => ended());
  }

  /** Encodes everything that waits or is being encoded, now. */
  #drain(): void {
    if (this.#underway) this.#waiting.unshift(this.#underway);
    this.#underway = undefined;
    for (let before = this.#before(); before; before = this.#before()) {
      const batch = this.#waiting.shift()!;
      try {
        this.#append(batch, batch.encodeSync(before));
      } catch (error) {
        this.#failed(batch.items.length, error as Error);
      }
    }
    this.#nothingWaits();
  }

  /** What precedes the first waiting batch; undefined if there is nothing to do. */
  #before(): Before | undefined {
    const [batch] = this.#waiting;
    if (!batch) return undefined;
    try {
      this.#file.open();
    } catch (error) {
      const items = this.#waiting.reduce((sum, waiting) => sum + waiting.items.length, 0);
      this.#failed(items, error as Error);
      this.#nothingWaits();
      return undefined;
    }
    const { link, fresh } = this.#file;
    const begins = fresh || this.#header !== batch.context;
    const options = { ...this.#options, continues: link };
    return { header: begins ? headerOf(batch.items[0]!, options) : undefined, link, top: this.#options.top };
  }

  #nothingWaits(): void {
    this.#waiting = [];
    this.#later?.end();
    this.#later = undefined;
  }

  #append({ items, context }: ItemBatch, lines: Uint8Array): void {
    this.#header = context;
    this.#file.append(items.length, lines);
  }

  /** Adds a record that represents no item. */
  #add(record: AuditRecord): void {
    this.#file.append(0, encodeRecord(record, this.#file.link));
  }

  /** Inference continues: the first failure is reported, all are counted, and the file is tried again. */
  #failed(items: number, error: Error): void {
    this.#header = undefined;
    this.#stats.lost += items;
    this.#stats.lastError = error.message;
    if (this.#stats.errors++ > 0) return;
    process.emitWarning(
      `audit log '${this.#options.path}': it can't be written (${error.message}); inference continues, and session.stats() counts the lost items`,
      { code: 'RESIDUAL_SKIP_AUDIT' },
    );
  }
}

/**
 * An observer for `InferenceSession.create`: an append-only trace of what every item ran and skipped, why, and with
 * which result. Encoding and writing happen off the hot path. A process that is killed loses at most the lines not
 * yet written. A full disk or a path that can't be written never stops inference.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function auditLog(options: AuditLogOptions): AuditLog {
  return new AuditLog(options);
}
