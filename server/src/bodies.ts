import type { IncomingMessage } from 'node:http';
import { ServerError } from './errors.js';

/** Bodies of at most this many bytes are read into reused memory; memory for longer ones is kept by nobody. */
const LONGEST_REUSED = 4 << 20;
/** Bytes of memory kept for later bodies. */
const KEPT_BYTES = 64 << 20;
/** The memory for a body is a multiple of this. */
const STEP_BYTES = 16 << 10;
/** The longest element of a tensor. */
const ALIGNED_BYTES = 8;

/**
 * Reads the bodies of requests into reused memory: new memory is mapped and cleared page by page and then collected as
 * garbage, which takes longer than the rest of a request with a photograph.
 */
export class Bodies {
  readonly #limit: number;
  /** Free memory by its size. */
  readonly #free = new Map<number, ArrayBuffer[]>();
  #kept = 0;

  /** @param limit maximum size of a body in bytes */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Calls `done` with the body, or with TOO_LARGE or the stream's error.
   * @param alignAt offset in the body that will be aligned for elements of any type
   */
  read(
    message: IncomingMessage,
    alignAt: number,
    done: (error: Error | null, body?: Uint8Array) => void,
  ): void {
    const length = Number(message.headers['content-length'] ?? Number.NaN);
    const tooLarge = () =>
      new ServerError(
        'TOO_LARGE',
        `body: it is longer than the ${this.#limit} bytes that this server takes; send smaller batches`,
      );
    if (length > this.#limit) {
      done(tooLarge());
      return;
    }
    const whole = length <= LONGEST_REUSED ? this.#take(length, alignAt) : undefined;
    const chunks: Uint8Array[] = [];
    let received = 0;
    const onData = (chunk: Buffer) => {
      received += chunk.length;
      if (received > this.#limit) return end(tooLarge());
      if (whole) whole.set(chunk, received - chunk.length);
      else chunks.push(chunk);
    };
    const onEnd = () => end(null);
    const end = (error: Error | null) => {
      message.off('data', onData);
      message.off('end', onEnd);
      message.off('error', end);
      if (error) done(error);
      else done(null, whole ?? Buffer.concat(chunks));
    };
    message.on('data', onData);
    message.on('end', onEnd);
    message.on('error', end);
  }

  /** `bytes`, or a copy that is aligned for elements of any type and may be given back. */
  aligned(bytes: Uint8Array): Uint8Array {
    if (bytes.byteOffset % ALIGNED_BYTES === 0 || bytes.length > LONGEST_REUSED) return bytes;
    const copy = this.#take(bytes.length, 0);
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

  #take(length: number, alignAt: number): Uint8Array {
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
    const shift = (ALIGNED_BYTES - (alignAt % ALIGNED_BYTES)) % ALIGNED_BYTES;
    return new Uint8Array(memory, shift, length);
  }
}
