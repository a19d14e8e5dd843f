import { randomBytes } from 'node:crypto';
import { ResidualSkipError } from '../errors.js';
import type { RunContext, RunEvent, RunObserver, SessionControl, TensorMap } from '../skip/observer.js';
import { copyData } from '../tensor/tensor.js';
import { emitWarning } from '../util/warnings.js';
import { closeAtExit, forget } from './at-exit.js';
import type { Before, ItemBatch } from './batch.js';
import { signer } from './checkpoint.js';
import { LogFile } from './file.js';
import { partsOf } from './hash.js';
import { InputStore, removeInputs } from './inputs.js';
import { headerOf, inputHashesIn, type Recorded } from './items.js';
import { Later } from './later.js';
import { type AuditLogOptions, type AuditLogStats, parseLogOptions } from './log-options.js';
import { type AuditEnergy, type AuditHeader, type AuditRecord, encodeRecord } from './record.js';
import { timeBothWays } from './time-both-ways.js';
import { WaitingItems } from './waiting-items.js';

/** Between two looks at what is due: signatures, rotation and removal by age. */
const TEND_MS = 60_000;

/** An observer that appends what every item did to a file; see auditLog. */
export class AuditLog implements RunObserver {
  readonly keepsInputs = false;
  readonly #options: ReturnType<typeof parseLogOptions>;
  readonly #file: LogFile;
  /** Null if inputs aren't stored. */
  readonly #inputs: InputStore | null = null;
  readonly #sign: ReturnType<typeof signer> | undefined;
  /** Link of the last signature. */
  #signed: string | undefined;
  readonly #writer = randomBytes(8).toString('hex');
  #tending: NodeJS.Timeout | undefined;
  #removing = false;
  #control: SessionControl | undefined;
  /** Whose items the last header is for; undefined if they need another one. */
  #context: RunContext | undefined;
  #header: AuditHeader | undefined;
  #runs = 0;
  /** Whether the last item was recorded. */
  #recordedLast = false;
  #timings = 0;
  readonly #waiting: WaitingItems;
  /** Encodes waiting items in a later turn of the event loop. */
  #later: Later | undefined;
  /** The batch that is being encoded, before those that wait. */
  #underway: ItemBatch | undefined;
  #stats = { written: 0, lost: 0, inputsLost: 0, errors: 0, removed: 0, lastError: null as string | null };

  constructor(options: AuditLogOptions) {
    this.#options = parseLogOptions(options);
    const { path, maxBytes, maxAge, keep, keepBytes, keepWithin, inputs, key } = this.#options;
    if (key !== undefined) this.#sign = signer(key);
    this.#waiting = new WaitingItems(maxBytes);
    if (inputs === 'store') {
      this.#inputs = new InputStore(path, (error) => {
        this.#stats.inputsLost++;
        this.#warnOf(error);
      });
    }
    this.#file = new LogFile(
      path,
      { maxBytes, maxAge, keep, keepBytes, keepWithin },
      {
        written: (items) => {
          this.#stats.written += items;
        },
        failed: (items, error) => this.#failed(items, error),
        removed: (files) => {
          this.#stats.removed += files;
        },
      },
    );
  }

  onAttach(control: SessionControl): void {
    this.#control = control;
    // What is too old or too much is removed although no item comes.
    if ((this.#options.keep ?? this.#options.keepBytes) !== undefined) this.#beginTending();
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
        // Stored inputs outlive the run.
        input: inputsKept && !this.#inputs ? input : (input?.map(copyData) ?? null),
        output,
        event,
      };
      this.#keep(waiting);
    }
    if (this.#waiting.isEmpty) return undefined;
    this.#later ??= new Later(() => this.#encode());
    if (this.#waiting.isEnough) this.#later.hurry();
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
    const times = await timeBothWays(this.#control, feeds, this.#timings++ % 2 === 0);
    this.#drain();
    // Without a header there is no item that the record could belong to.
    if (this.#ensureHeader()) this.#add({ type: 'full', time: Date.now(), run, ...times });
  }

  /** Records the CPU time and energy of items both ways, as `record` measures them, for the report. */
  recordEnergy({ items, cpuSeconds, joules }: Omit<AuditEnergy, 'type' | 'time'>): void {
    this.#drain();
    // Without a header the record would belong to no model.
    if (!this.#ensureHeader()) return;
    this.#add({ type: 'energy', time: Date.now(), items, cpuSeconds, joules });
  }

  stats(): { auditLog: AuditLogStats } {
    return { auditLog: { ...this.#stats } };
  }

  /** Writes what waits and closes the file. Called when the session is released. */
  async onRelease(): Promise<void> {
    this.#end();
    clearInterval(this.#tending);
    this.#tending = undefined;
    await Promise.all([this.#file.close(), this.#inputs?.settled()]);
    forget(this);
  }

  /** Like onRelease, for a process that ends: without the event loop. */
  closeNow(): void {
    this.#end();
    this.#file.closeNow();
    this.#inputs?.saveNow();
  }

  /** Gives a file that was begun by rotation the header of the file before. False if there is none. */
  #ensureHeader(): boolean {
    if (!this.#header || !this.#file.isOpen) return false;
    if (this.#file.fresh) this.#add({ ...this.#header, continues: this.#file.link, lost: this.#stats.lost });
    return true;
  }

  /** Writes what waits, and that this is all. */
  #end(): void {
    this.#drain();
    if (!this.#ensureHeader()) return;
    const { written, lost } = this.#stats;
    this.#add({ type: 'end', time: Date.now(), written: written + this.#file.waiting, lost });
    this.#checkpoint();
    this.#header = undefined;
    this.#context = undefined;
  }

  /** Signs everything before it, if it isn't signed yet. */
  #checkpoint(): void {
    if (!this.#sign || this.#file.fresh || this.#signed === this.#file.link) return;
    const { link, ...record } = this.#sign(this.#file.link);
    this.#add({ type: 'checkpoint', ...record });
    this.#signed = this.#file.link;
    this.#options.onCheckpoint?.({ link, ...record });
  }

  /** Signs, rotates and removes what is due. */
  #tend(): void {
    if (this.#file.isOpen) {
      this.#drain();
      this.#checkpoint();
    }
    this.#file.tend();
    const { keep, path } = this.#options;
    if (keep === undefined || this.#removing) return;
    this.#removing = true;
    removeInputs(path, Date.now() - keep)
      .catch((error: Error) => this.#warnOf(error))
      .finally(() => {
        this.#removing = false;
      });
  }

  #beginTending(): void {
    this.#tending ??= setInterval(() => this.#tend(), TEND_MS).unref();
  }

  #keep(item: Recorded): void {
    closeAtExit(this);
    this.#beginTending();
    this.#waiting.add(item, this.#control?.auditLines);
    // Synchronous runs give the event loop no turn.
    if (this.#waiting.isTooMuch) this.#drain();
  }

  /** Starts to encode what waits. Batches follow one another: each continues the previous link. */
  #encode(): void {
    if (this.#underway) return;
    const before = this.#before();
    if (!before) return;
    const batch = this.#waiting.take();
    this.#underway = batch;
    const { closings } = this.#file;
    const later = this.#waiting.isEmpty ? this.#later : undefined;
    if (later) this.#later = undefined;
    const ended = (lines?: Uint8Array) => {
      // Otherwise this batch and the waiting ones were encoded at once meanwhile.
      if (this.#underway === batch) {
        // If the line that they continue was lost, or the session was released, they are encoded again.
        if (lines === undefined || this.#file.closings !== closings) {
          this.#drain();
        } else {
          this.#underway = undefined;
          this.#append(batch, before, lines);
        }
      }
      later?.end();
      if (this.#later && (this.#later.due || this.#waiting.isEnough)) this.#later.hurry();
    };
    batch.encode(before).then(ended, () => ended());
  }

  /** Encodes everything that waits or is being encoded, now. */
  #drain(): void {
    if (this.#underway) this.#waiting.putBack(this.#underway);
    this.#underway = undefined;
    for (let before = this.#before(); before; before = this.#before()) {
      const batch = this.#waiting.take();
      try {
        this.#append(batch, before, batch.encodeSync(before));
      } catch (error) {
        this.#failed(batch.items.length, error as Error);
      }
    }
    this.#nothingWaits();
  }

  /** What precedes the first waiting batch; undefined if there is nothing to do. */
  #before(): Before | undefined {
    const batch = this.#waiting.first;
    if (!batch) return undefined;
    try {
      this.#file.open();
    } catch (error) {
      this.#failed(this.#waiting.items, error as Error);
      this.#nothingWaits();
      return undefined;
    }
    const { link, fresh } = this.#file;
    const before = { link, top: this.#options.top };
    if (!fresh && this.#context === batch.context) return { ...before, header: undefined };
    const of = { ...this.#options, continues: link, writer: this.#writer, lost: this.#stats.lost };
    return { ...before, header: headerOf(batch.items[0]!, of) };
  }

  #nothingWaits(): void {
    this.#waiting.clear();
    this.#later?.end();
    this.#later = undefined;
  }

  #append({ items, context }: ItemBatch, { header }: Before, lines: Uint8Array): void {
    this.#context = context;
    this.#header = header ?? this.#header;
    this.#file.append(items.length, lines);
    if (!this.#inputs) return;
    for (const [i, hash] of inputHashesIn(lines).entries()) {
      const { input, event } = items[i]!;
      this.#inputs.save({ hash, inputs: event.inputs, items: event.items, data: input! });
    }
  }

  /** Adds a record that represents no item. */
  #add(record: AuditRecord): void {
    this.#file.append(0, encodeRecord(record, this.#file.link));
  }

  /** Inference continues: the first failure is reported, all are counted, and the file is tried again. */
  #failed(items: number, error: Error): void {
    this.#context = undefined;
    this.#stats.lost += items;
    this.#warnOf(error);
  }

  #warnOf(error: Error): void {
    this.#stats.lastError = error.message;
    if (this.#stats.errors++ > 0) return;
    emitWarning(
      'AUDIT',
      `audit log '${this.#options.path}': it can't be written (${error.message}); inference continues, and session.stats() counts the lost items`,
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
