/**
 * Steps of search that rewriting may take, in a region and its branches: some patterns look far, and a file may be made so that they
 * always do. Rewriting is optional. It ends when this is spent, and what is left runs as it is.
 */
export class Effort {
  private left = 2 ** 20;

  /** For `count` operations. */
  allow(count: number): void {
    this.left += 128 * count;
  }

  spend(steps: number): void {
    this.left -= steps;
  }

  get spent(): boolean {
    return this.left < 0;
  }
}
