/**
 * Batches of items as lines of the audit log: encoded in C++, if need be between runs, or here where that is
 * impossible.
 */
import { nativeAuditLines } from '../backends/addon.js';
import type { AuditLines, RunContext } from '../skip/observer.js';
import type { TensorData } from '../tensor/tensor.js';
import { DIGEST_BYTES, hashAll } from './hash.js';
import {
  type Recorded,
  savedBy,
  scoresOf,
  writeExits,
  writeItem,
  writeOutcome,
  writeRequest,
} from './items.js';
import { LineText } from './line.js';
import { type AuditHeader, sealLine } from './record.js';

/** What precedes a batch, and how to write it. */
export interface Before {
  /** A line that precedes the items. */
  readonly header: AuditHeader | undefined;
  /** Link of the previous line. */
  readonly link: string;
  /** Number of best classes to record. */
  readonly top: number;
}

/**
 * Most items to encode together. When the calling thread encodes while workers run, small batches are better: they
 * are still in its cache. Between runs, each batch costs the calling thread some time, however many items it has.
 */
const BATCH_ITEMS = { here: 8, between: 32 };
/** Files are rotated after whole batches: a batch has at most one item per this many bytes of a file. */
const BYTES_FOR_EACH = 4096;
const NOTHING = new Uint8Array(0);

/** Items of one context to encode together. */
export class ItemBatch {
  readonly items: Recorded[] = [];
  readonly #capacity: number;
  readonly #columns: Columns | undefined;
  #native = nativeAuditLines();
  #bytes = 0;

  /**
   * @param maxBytes size at which a file is rotated, at least BYTES_FOR_EACH
   * @param between encodes between runs; if undefined, the calling thread encodes
   */
  constructor(
    readonly context: RunContext,
    first: Recorded,
    maxBytes: number,
    private readonly between?: AuditLines,
  ) {
    const max = between ? BATCH_ITEMS.between : BATCH_ITEMS.here;
    this.#capacity = Math.min(max, Math.floor(maxBytes / BYTES_FOR_EACH));
    if (this.#native && isSimple(first)) {
      this.#columns = new Columns(this.#capacity, context.blocks, first.output[0]!.length);
    }
    this.add(first);
  }

  get full(): boolean {
    return this.items.length === this.#capacity;
  }

  /** Of the tensors held. */
  get bytes(): number {
    return this.#bytes;
  }

  add(item: Recorded): void {
    this.items.push(item);
    for (const { byteLength } of item.input ?? []) this.#bytes += byteLength;
    for (const { byteLength } of item.output) this.#bytes += byteLength;
    if (!this.#columns) this.#native = null;
    // With encoding between runs, the run's results are still in the cache now. Where the calling thread encodes, it
    // has no time yet.
    else if (this.between) this.#fill();
  }

  /** Copies items that are not in the columns yet. */
  #fill(): void {
    const columns = this.#columns!;
    while (this.#native && columns.items < this.items.length) {
      if (!columns.add(this.items[columns.items]!)) this.#native = null;
    }
  }

  /** Encodes whole lines. The arrays of the items must not change before the promise settles. */
  async encode(before: Before): Promise<Uint8Array> {
    if (this.#native && this.between) return this.between(...this.#forNative(before));
    return this.encodeSync(before);
  }

  /** Like `encode`, but on the calling thread; also while `encode` is in progress. */
  encodeSync(before: Before): Uint8Array {
    if (this.#native) this.#fill();
    return this.#native ? this.#native(...this.#forNative(before)) : this.#encodeHere(before);
  }

  #forNative({ header, link, top }: Before): Parameters<AuditLines> {
    const record = header ? Buffer.from(JSON.stringify(header)) : NOTHING;
    const { columns, texts, inputs, outputLength } = this.#columns!;
    const arrays = [columns, texts, record, Buffer.from(link, 'latin1'), ...inputs];
    const { meaning } = this.context.classScores!;
    return [
      arrays,
      this.items.length,
      this.#capacity,
      this.context.blocks.length,
      outputLength,
      top,
      meaning,
    ];
  }

  #encodeHere({ header, link, top }: Before): Uint8Array {
    const line = new LineText();
    const lines: Uint8Array[] = [];
    let last = link;
    const seal = () => {
      last = sealLine(line, last);
      lines.push(Buffer.from(line.text()));
      line.clear();
    };
    if (header) {
      line.json(header);
      seal();
    }
    // Messages of equal length are adjacent: inputs first.
    const inputs = this.items.flatMap(({ input }) => (input ? [input] : []));
    const digests = hashAll([...inputs, ...this.items.map(({ output }) => output)]);
    let input = 0;
    for (const [i, item] of this.items.entries()) {
      const hashes = {
        digests,
        input: item.input ? DIGEST_BYTES * input++ : null,
        output: DIGEST_BYTES * (inputs.length + i),
      };
      writeItem(line, item, hashes, top);
      seal();
    }
    return Buffer.concat(lines);
  }
}

/** The native encoder supports items with at most one input, and with one output that holds class scores. */
function isSimple({ input, output, event }: Recorded): boolean {
  return (
    (input === null || input.length === 1) &&
    output.length === 1 &&
    output[0] instanceof Float32Array &&
    scoresOf(event, output) !== undefined
  );
}

/** Numbers for each item. */
const NUMBERS = 8;

/** A batch in the form that auditLines of native/addon takes. */
class Columns {
  /** All columns one after another, with room for `capacity` items each. */
  readonly columns: Uint8Array;
  readonly #numbers: Float64Array;
  readonly #scores: Float32Array;
  readonly #outputs: Float32Array;
  readonly #ran: Uint8Array;
  readonly #reasons: Uint8Array;
  readonly inputs: TensorData[] = [];
  /** Of each item, its exits and its request. */
  #texts: LineText | undefined;
  #items = 0;

  constructor(
    capacity: number,
    private readonly blocks: RunContext['blocks'],
    readonly outputLength: number,
  ) {
    const cells = capacity * blocks.length;
    const [numbers, outputs] = [capacity * NUMBERS, capacity * outputLength];
    // One buffer: creating one takes longer than anything else here.
    const all = new ArrayBuffer(8 * numbers + 4 * (cells + outputs) + 2 * cells);
    this.columns = new Uint8Array(all);
    this.#numbers = new Float64Array(all, 0, numbers);
    this.#scores = new Float32Array(all, 8 * numbers, cells);
    this.#outputs = new Float32Array(all, 8 * numbers + 4 * cells, outputs);
    this.#ran = new Uint8Array(all, 8 * numbers + 4 * (cells + outputs), cells);
    this.#reasons = new Uint8Array(all, 8 * numbers + 4 * (cells + outputs) + cells, cells);
  }

  /** Number of items. */
  get items(): number {
    return this.#items;
  }

  get texts(): Uint8Array {
    return this.#texts?.text() ?? NOTHING;
  }

  /** Returns false when it doesn't fit. */
  add(recorded: Recorded): boolean {
    const { time, run, item, input, output, event } = recorded;
    if (!isSimple(recorded) || output[0]!.length !== this.outputLength) return false;
    const index = this.#items++;
    const decisions = event.decisionsOf(item);
    decisions.copyTo(this.#ran, this.#reasons, this.#scores, index * this.blocks.length);
    this.#outputs.set(output[0] as Float32Array, index * this.outputLength);
    if (input) this.inputs.push(input[0]!);
    const before = this.#texts?.length ?? 0;
    if (decisions.exits.length > 0) {
      this.#texts ??= new LineText();
      writeExits(this.#texts, decisions);
    }
    const between = this.#texts?.length ?? 0;
    if (decisions.exits.length > 0 || decisions.inFull) {
      this.#texts ??= new LineText();
      writeOutcome(this.#texts, decisions, this.blocks.length);
    }
    if (event.requests) {
      this.#texts ??= new LineText();
      writeRequest(this.#texts, event.requests[item]!);
    }
    const at = NUMBERS * index;
    this.#numbers[at] = time;
    this.#numbers[at + 1] = run;
    this.#numbers[at + 2] = item;
    this.#numbers[at + 3] = event.milliseconds / event.items;
    this.#numbers[at + 4] = savedBy(decisions, this.blocks) ?? Number.NaN;
    this.#numbers[at + 5] = between - before;
    this.#numbers[at + 6] = (this.#texts?.length ?? 0) - between;
    this.#numbers[at + 7] = input ? 1 : 0;
    return true;
  }
}
