import { copyData, type TensorData } from '../tensor.js';

/** How many arrays are kept for runs to come: as many as an observer holds at a time, and some more. */
const KEPT = 72;

/**
 * Copies of inputs, in memory that is used again: new memory is cleared and mapped page by page, which for an image
 * takes as long as a layer.
 */
export class InputCopies {
  readonly #free: TensorData[] = [];

  copy(data: TensorData): TensorData {
    // The one freed last is the likeliest to be in the cache.
    const at = this.#free.findLastIndex(
      (free) => free.constructor === data.constructor && free.length === data.length,
    );
    if (at < 0) return copyData(data);
    const [copy] = this.#free.splice(at, 1) as [TensorData];
    (copy as { set(from: TensorData): void }).set(data);
    return copy;
  }

  /** `copies` may be overwritten from now on. */
  reuse(copies: readonly TensorData[]): void {
    this.#free.push(...copies);
    this.#free.splice(0, this.#free.length - KEPT);
  }
}
