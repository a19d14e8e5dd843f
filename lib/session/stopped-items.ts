import type { CompiledProgram } from '../backends/backend.js';

/** Bytes that are kept of the items of one call. */
const MAX_BYTES = 2 ** 28;
/** Bytes of an array that holds several states, and of all arrays that are kept between calls. */
const [ARRAY_BYTES, KEPT_BYTES] = [2 ** 20, 2 ** 25];

/** Memory that calls have in turns. An array for each state would cost more than what is copied into it, and garbage collections. */
export class StateMemory {
  readonly #free: Uint8Array[] = [];

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(ARRAY_BYTES);
  }

  giveBack(arrays: readonly Uint8Array[]): void {
    this.#free.push(...arrays.slice(0, KEPT_BYTES / ARRAY_BYTES - this.#free.length));
  }
}

/**
 * Where exits stopped items, so that deeper runs of the same items go on from there. Items for which there is no room begin again, as they do
 * on another program.
 */
export class StoppedItems {
  readonly #states = new Map<number, { readonly compiled: CompiledProgram; readonly bytes: Uint8Array }>();
  readonly #arrays: Uint8Array[] = [];
  /** What is left of the last array. */
  #rest: Uint8Array = new Uint8Array(0);
  #left: number;

  constructor(
    maxBytes = MAX_BYTES,
    private readonly memory = new StateMemory(),
  ) {
    this.#left = maxBytes;
  }

  /** The `states` of a request to run these items. */
  statesOf(items: readonly number[], compiled: CompiledProgram): (Uint8Array | undefined)[] | undefined {
    const { stateBytes = 0 } = compiled;
    if (stateBytes === 0) return undefined;
    return items.map((item) => {
      const known = this.#states.get(item);
      if (known?.compiled === compiled) return known.bytes;
      this.#states.delete(item);
      if (known?.bytes.length === stateBytes) return this.#keep(item, compiled, known.bytes);
      if (stateBytes > this.#left) return undefined;
      this.#left -= stateBytes;
      return this.#keep(item, compiled, this.#allocate(stateBytes));
    });
  }

  /** Gives the memory back, when no run of these items is under way. They begin again. */
  release(): void {
    this.memory.giveBack(this.#arrays.splice(0));
    this.#rest = new Uint8Array(0);
    this.#states.clear();
  }

  /** The memory is empty then: an item with zeros begins again. */
  #keep(item: number, compiled: CompiledProgram, memory: Uint8Array): Uint8Array {
    const bytes = memory.subarray().fill(0);
    this.#states.set(item, { compiled, bytes });
    return bytes;
  }

  #allocate(size: number): Uint8Array {
    if (size > ARRAY_BYTES) return new Uint8Array(size);
    if (size > this.#rest.length) {
      this.#rest = this.memory.take();
      this.#arrays.push(this.#rest);
    }
    const bytes = this.#rest.subarray(0, size);
    this.#rest = this.#rest.subarray(size);
    return bytes;
  }
}

/** Which of the stopped items a batch has. */
export interface Stopped {
  readonly stopped: StoppedItems;
  /** The number of each item of the batch; the same number always means the same feeds. */
  readonly items: readonly number[];
}
