import { copyData, type TensorData } from './tensor.js';

/** How many arrays are kept for runs to come. */
const KEPT = 4;

/**
 * Copies of inputs, in memory that is used again: new memory is cleared and mapped page by page, which for an image
 * takes as long as a layer.
 */
export class InputCopies {
  readonly #free: TensorData[] = [];

  copy(data: TensorData): TensorData {
    const at = this.#free.findIndex(
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
