/** The random choices of one case, determined by seed and number. */
import { uniform } from '../helpers/random.js';

export class Random {
  readonly next: () => number;

  constructor(seed: number, number: number) {
    // Mix the bits, so that neighbouring numbers start far apart.
    this.next = uniform((Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0);
  }

  /** An integer from 0 up to, but not including, `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}
