import { copyData, type TensorData } from '../tensor/tensor.js';

/** Number of arrays kept for later runs: what an observer holds at a time, and some more. */
const KEPT = 72;

/**
 * Copies of inputs, in reused memory: new memory is cleared and mapped page by page, which takes as long as a layer
 * for an image.
 */
export class InputCopies {
  readonly #free: TensorData[] = [];

  copy(data: TensorData): TensorData {
    // The array freed last is most likely in the cache.
    const at = this.#free.findLastIndex(
      (free) => free.constructor === data.constructor && free.length === data.length,
    );
    if (at < 0) return copyData(data);
    const [copy] = this.#free.splice(at, 1) as [TensorData];
    (copy as { set(from: TensorData): void }).set(data);
    return copy;
  }

  /** Allows later calls to overwrite `copies`. */
  reuse(copies: readonly TensorData[]): void {
    this.#free.push(...copies);
    this.#free.splice(0, this.#free.length - KEPT);
  }
}
