/** Whole lines to write together. */
export interface Chunk {
  readonly bytes: Buffer;
  /** The memory of the lines, for reuse; empty if it is shared. */
  readonly room: Buffer;
  readonly items: number;
  /** The file is rotated after this chunk. */
  readonly last: boolean;
}

/** Bytes to write at once. */
const CHUNK_BYTES = 2 ** 16;
/** Room for the last lines of a chunk. */
const SPARE_BYTES = 2 ** 14;
const NOTHING = Buffer.alloc(0);

export const NO_CHUNK: Chunk = { bytes: NOTHING, room: NOTHING, items: 0, last: false };

/** Lines that wait until there are enough of them to be written. */
export class LineBuffer {
  /** The lines are its first `#used` bytes. */
  #room: Buffer = NOTHING;
  #used = 0;
  /** Memory of a written chunk, for the next one: new memory is mapped page by page. */
  #spare: Buffer = NOTHING;
  /** Whether the first line is the header of a file. */
  #begins = false;
  #items = 0;

  /** Of all lines. */
  get items(): number {
    return this.#items;
  }

  get isEmpty(): boolean {
    return this.#used === 0;
  }

  /** Whether the lines are worth a chunk. */
  get isFull(): boolean {
    return this.#used >= CHUNK_BYTES;
  }

  get bytes(): Buffer {
    return this.#room.subarray(0, this.#used);
  }

  /** @param begins whether `lines` begin with the header of a file */
  add(items: number, lines: Uint8Array, begins: boolean): void {
    const end = this.#used + lines.length;
    if (end > this.#room.length) {
      const room =
        this.#spare.length >= end
          ? this.#spare
          : Buffer.allocUnsafeSlow(Math.max(end, CHUNK_BYTES + SPARE_BYTES));
      this.#spare = NOTHING;
      this.#room.copy(room, 0, 0, this.#used);
      this.#room = room;
    }
    this.#room.set(lines, this.#used);
    this.#used = end;
    this.#begins ||= begins;
    this.#items += items;
  }

  /** Takes all lines out, as one chunk or, where a file begins, as two: its header is written first. */
  seal(last: boolean): Chunk[] {
    const { bytes } = this;
    const header = this.#begins ? bytes.indexOf(10) + 1 : 0;
    const chunk = { bytes: bytes.subarray(header), room: this.#room, items: this.#items, last };
    this.clear();
    return header > 0 ? [{ ...NO_CHUNK, bytes: bytes.subarray(0, header) }, chunk] : [chunk];
  }

  clear(): void {
    this.#room = NOTHING;
    this.#used = 0;
    this.#begins = false;
    this.#items = 0;
  }

  /** Takes the memory of a written chunk. */
  reuse({ room }: Chunk): void {
    if (room.length > 0) this.#spare = room;
  }
}
