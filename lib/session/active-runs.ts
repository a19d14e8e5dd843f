import { setTimeout } from 'node:timers/promises';

const STEP_MS = 2;

/** A session's runs in progress. */
export class ActiveRuns {
  readonly #runs = new Set<Promise<unknown>>();

  /** Counts `run` until it settles. */
  track<T>(run: Promise<T>): Promise<T> {
    this.#runs.add(run);
    const ended = () => this.#runs.delete(run);
    run.then(ended, ended);
    return run;
  }

  /** Resolves when the runs in progress now have settled, successfully or not. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#runs);
  }

  /**
   * Resolves when no run is in progress, checked every two milliseconds and not before the first check, or after
   * `patience` milliseconds.
   */
  async idle(patience: number): Promise<void> {
    const end = performance.now() + patience;
    do await setTimeout(STEP_MS);
    while (this.#runs.size > 0 && performance.now() < end);
  }
}
