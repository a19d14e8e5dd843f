import type { AuditLines } from '../skip/observer.js';
import { ItemBatch } from './batch.js';
import type { Recorded } from './items.js';

/** Bytes of tensors to encode in the next turn of the event loop, as with a full batch. */
const BATCH_BYTES = 2 ** 19;
/** Most bytes of tensors that may wait; beyond that, encoding happens at once, on the hot path. */
const MAX_BYTES = 2 ** 24;

/** Items that wait to be encoded, in batches of one context each. */
export class WaitingItems {
  #batches: ItemBatch[] = [];

  /** @param maxBytes size at which the log's file is rotated */
  constructor(private readonly maxBytes: number) {}

  get first(): ItemBatch | undefined {
    return this.#batches[0];
  }

  get isEmpty(): boolean {
    return this.#batches.length === 0;
  }

  get items(): number {
    return this.#batches.reduce((sum, { items }) => sum + items.length, 0);
  }

  /** Whether they should be encoded soon. */
  get isEnough(): boolean {
    return this.first?.full === true || this.#bytes >= BATCH_BYTES;
  }

  /** Whether they must be encoded now. */
  get isTooMuch(): boolean {
    return this.#bytes > MAX_BYTES;
  }

  /** @param between encodes between runs; if undefined, the calling thread encodes */
  add(item: Recorded, between: AuditLines | undefined): void {
    const last = this.#batches.at(-1);
    const { context } = item.event;
    if (last && !last.full && last.context === context) last.add(item);
    else this.#batches.push(new ItemBatch(context, item, this.maxBytes, between));
  }

  /** Removes the first batch, which there must be. */
  take(): ItemBatch {
    return this.#batches.shift()!;
  }

  putBack(batch: ItemBatch): void {
    this.#batches.unshift(batch);
  }

  clear(): void {
    this.#batches = [];
  }

  get #bytes(): number {
    let bytes = 0;
    for (const batch of this.#batches) bytes += batch.bytes;
    return bytes;
  }
}
