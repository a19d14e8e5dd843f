/** Distribution of the values of a tensor, over all images. */

/** Bins on either side of zero. */
const HALF = 4096;

export class Histogram {
  /** Numbers of values in equal bins of [-limit, limit]; zeros, which any range has exactly, are left out. */
  #bins = new Float64Array(2 * HALF);
  #limit = 2 ** -20;
  min = 0;
  max = 0;

  add(values: Float32Array): void {
    for (const value of values) {
      if (value < this.min) this.min = value;
      else if (value > this.max) this.max = value;
    }
    while (Math.max(-this.min, this.max) > this.#limit) this.#widen();
    const bins = this.#bins;
    const scale = HALF / this.#limit;
    for (const value of values) {
      if (value === 0) continue;
      const bin = Math.floor(value * scale) + HALF;
      bins[bin < 2 * HALF ? bin : 2 * HALF - 1]!++;
    }
  }

  merge(other: Histogram): void {
    while (this.#limit < other.#limit) this.#widen();
    const ratio = this.#limit / other.#limit;
    for (let i = 0; i < 2 * HALF; i++) this.#bins[HALF + Math.floor((i - HALF) / ratio)]! += other.#bins[i]!;
    this.min = Math.min(this.min, other.min);
    this.max = Math.max(this.max, other.max);
  }

  /** Twice the range: two bins become one. */
  #widen(): void {
    const wide = new Float64Array(2 * HALF);
    for (let i = 0; i < 2 * HALF; i++) wide[HALF / 2 + (i >> 1)]! += this.#bins[i]!;
    this.#bins = wide;
    this.#limit *= 2;
  }

  /** The centre and the count of each bin that isn't empty, in order. */
  bins(): { readonly centres: Float64Array; readonly counts: Float64Array } {
    const used = [...this.#bins.keys()].filter((i) => this.#bins[i]! > 0);
    return {
      centres: Float64Array.from(used, (i) => ((i - HALF + 0.5) * this.#limit) / HALF),
      counts: Float64Array.from(used, (i) => this.#bins[i]!),
    };
  }
}
