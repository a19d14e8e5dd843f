import { setTimeout } from 'node:timers/promises';

const STEP_MS = 2;

/** The runs of a session that are under way. */
export class ActiveRuns {
  readonly #runs = new Set<Promise<unknown>>();

  /** Counts `run` until it is settled. */
  track<T>(run: Promise<T>): Promise<T> {
    this.#runs.add(run);
    const ended = () => this.#runs.delete(run);
    run.then(ended, ended);
    return run;
  }

  /** Resolves when the runs of now are settled, whatever came of them. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#runs);
  }

  /**
   * Resolves when no run is under way, looked at every other millisecond and not before the first, or when `patience`
   * milliseconds are over.
   */
  async idle(patience: number): Promise<void> {
    const end = performance.now() + patience;
    do await setTimeout(STEP_MS);
    while (this.#runs.size > 0 && performance.now() < end);
  }
}
