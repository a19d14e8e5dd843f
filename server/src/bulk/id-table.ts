const WORDS = 4;

/** A set of ids of 32 hexadecimal digits. Each takes 16 bytes, so tens of millions fit into memory. */
export class IdTable {
  #size = 0;
  /** Open addressing; an entry of zeros is free. */
  #words = new Uint32Array(WORDS << 10);

  get size(): number {
    return this.#size;
  }

  has(id: string): boolean {
    const entry = wordsOf(id);
    return this.#words[this.#find(entry)] !== 0;
  }

  /** Returns whether the id is new. */
  add(id: string): boolean {
    const entry = wordsOf(id);
    const at = this.#find(entry);
    if (this.#words[at] !== 0) return false;
    this.#words.set(entry, at);
    this.#size++;
    if (2 * WORDS * this.#size > this.#words.length) this.#grow();
    return true;
  }

  /** Index of the id's entry, or of the free entry where it belongs. */
  #find(entry: ArrayLike<number>): number {
    const words = this.#words;
    let at = (entry[0]! * WORDS) % words.length;
    while (words[at] !== 0) {
      if (entry[0] === words[at] && entry[1] === words[at + 1]) {
        if (entry[2] === words[at + 2] && entry[3] === words[at + 3]) return at;
      }
      at = (at + WORDS) % words.length;
    }
    return at;
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(2 * old.length);
    for (let at = 0; at < old.length; at += WORDS) {
      const entry = old.subarray(at, at + WORDS);
      if (entry[0] !== 0) this.#words.set(entry, this.#find(entry));
    }
  }
}

/** The first word is never 0, which marks a free entry. */
function wordsOf(id: string): number[] {
  const words = Array.from({ length: WORDS }, (_, i) => Number.parseInt(id.slice(8 * i, 8 * i + 8), 16));
  words[0] ||= 1;
  return words;
}
