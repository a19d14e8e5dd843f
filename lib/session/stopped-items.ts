import type { CompiledProgram } from '../backends/backend.js';

/** Bytes that are kept of the items of one call. */
const MAX_BYTES = 2 ** 28;

/**
 * Where exits stopped items, so that deeper runs of the same items go on from there. Items for which there is no room begin again, as they do
 * on another program.
 */
export class StoppedItems {
  readonly #states = new Map<number, { readonly compiled: CompiledProgram; readonly bytes: Uint8Array }>();
  #left: number;

  constructor(maxBytes = MAX_BYTES) {
    this.#left = maxBytes;
  }

  /** The `states` of a request to run these items. */
  statesOf(items: readonly number[], compiled: CompiledProgram): (Uint8Array | undefined)[] | undefined {
    const { stateBytes = 0 } = compiled;
    if (stateBytes === 0) return undefined;
    return items.map((item) => {
      const known = this.#states.get(item);
      if (known?.compiled === compiled) return known.bytes;
      this.#left += known?.bytes.length ?? 0;
      this.#states.delete(item);
      if (stateBytes > this.#left) return undefined;
      this.#left -= stateBytes;
      const bytes = new Uint8Array(stateBytes);
      this.#states.set(item, { compiled, bytes });
      return bytes;
    });
  }
}

/** Which of the stopped items a batch has. */
export interface Stopped {
  readonly stopped: StoppedItems;
  /** The number of each item of the batch; the same number always means the same feeds. */
  readonly items: readonly number[];
}
