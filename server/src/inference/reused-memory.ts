/** Bodies of at most this many bytes have reused memory; memory for longer ones is kept by nobody. */
const LONGEST_REUSED = 4 << 20;
/** Bytes of memory kept for later bodies. */
const KEPT_BYTES = 64 << 20;
/** The memory for a body is a multiple of this. */
const STEP_BYTES = 16 << 10;
/** The longest element of a tensor. */
const ALIGNED_BYTES = 8;

/**
 * Memory for bodies: new memory is mapped and cleared page by page and then collected as garbage, which takes longer than the rest of a
 * request with a photograph.
 */
export class ReusedMemory {
  /** Free memory by its size. */
  readonly #free = new Map<number, ArrayBuffer[]>();
  #kept = 0;

  /** `bytes`, or a copy that is aligned for elements of any type and may be given back. */
  aligned(bytes: Uint8Array): Uint8Array {
    if (bytes.byteOffset % ALIGNED_BYTES === 0 || bytes.length > LONGEST_REUSED) return bytes;
    const copy = this.take(bytes.length, 0);
    copy.set(bytes);
    return copy;
  }

  /** Allows later bodies to overwrite `body`, which nobody may use any longer. */
  giveBack({ buffer }: Uint8Array): void {
    const size = buffer.byteLength;
    const free = this.#free.get(size);
    if (!free || this.#kept + size > KEPT_BYTES) return;
    this.#kept += size;
    free.push(buffer as ArrayBuffer);
  }

  /** Memory of so many bytes, which is aligned for elements of any type from `alignAt` on. */
  take(length: number, alignAt: number): Uint8Array {
    const shift = (ALIGNED_BYTES - (alignAt % ALIGNED_BYTES)) % ALIGNED_BYTES;
    if (length > LONGEST_REUSED) {
      const { buffer } = Buffer.allocUnsafeSlow(length + ALIGNED_BYTES);
      return new Uint8Array(buffer, shift, length);
    }
    const size = STEP_BYTES * Math.ceil((length + ALIGNED_BYTES) / STEP_BYTES);
    let free = this.#free.get(size);
    if (!free) {
      free = [];
      this.#free.set(size, free);
    }
    const buffer = free.pop();
    if (buffer) this.#kept -= size;
    // Buffer's own memory isn't cleared first.
    const memory = buffer ?? Buffer.allocUnsafeSlow(size).buffer;
    return new Uint8Array(memory, shift, length);
  }
}
