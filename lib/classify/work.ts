/** Progress, notes and cancellation of work on many images. */
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import type { Progress } from '../session/progress.js';
import { late } from '../util/late.js';
import { emitWarning } from '../util/warnings.js';

/** Options of work that takes time. */
export interface WorkOptions {
  /** Called after each image or every few images; an exception that it throws ends the work. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Called with notes for the caller, which are not errors; a note is a process warning when left out. */
  onNote?: ((note: string) => void) | undefined;
  /** Aborting it ends the work with the error ABORTED, whose name is AbortError. */
  signal?: AbortSignal | null | undefined;
}

const callback = late(() =>
  z.custom<(value: never) => void>((value) => typeof value === 'function', {
    error: 'expected a function',
  }),
);

/** Schema fields of WorkOptions. */
export const workShape = late(() => ({
  onProgress: callback().optional(),
  onNote: callback().optional(),
  signal: z
    .custom<AbortSignal>((value) => value instanceof AbortSignal, { error: 'expected an AbortSignal' })
    .nullish(),
}));

/** Hands a note to the caller; a process warning if he takes none. */
export function makeNote(onNote: WorkOptions['onNote'], text: string): void {
  if (onNote) onNote(text);
  else emitWarning('NOTE', text);
}

/** How often the event loop gets a turn, so that timers run and a signal can be aborted. */
const TURN_MS = 20;

export class Work {
  #turned = performance.now();

  /** @param what name of the work in messages, such as "evaluation" */
  constructor(
    private readonly what: string,
    private readonly options: WorkOptions,
  ) {}

  /** @throws ResidualSkipError ABORTED once the signal is aborted */
  check(): void {
    if (this.options.signal?.aborted) throw this.#aborted();
  }

  report(stage: Progress['stage'], done: number, total: number | null, network?: string): void {
    this.check();
    this.options.onProgress?.({ stage, done, total, ...(network !== undefined && { network }) });
  }

  readonly note = (text: string): void => makeNote(this.options.onNote, text);

  /** Yields `items` and lets the event loop run in between; an abort also ends the wait for the next item. */
  async *each<T>(items: AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
    try {
      while (true) {
        this.check();
        const next = await this.unlessAborted(items.next());
        if (next.done) return;
        yield next.value;
        if (performance.now() - this.#turned < TURN_MS) continue;
        await setImmediate();
        this.#turned = performance.now();
      }
    } finally {
      // Not awaited, because a source may hang.
      items.return().catch(() => {});
    }
  }

  #aborted(): ResidualSkipError {
    return new ResidualSkipError('ABORTED', `${this.what}: it was aborted`, {
      cause: this.options.signal?.reason,
    });
  }

  /** The result of what may hang; an abort ends the wait. */
  unlessAborted<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this.options;
    if (!signal) return promise;
    return new Promise((resolve, reject) => {
      const abort = () => reject(this.#aborted());
      signal.addEventListener('abort', abort, { once: true });
      promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    });
  }
}
