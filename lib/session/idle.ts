import { setTimeout } from 'node:timers/promises';

const STEP_MS = 2;

/**
 * Resolves when `running` is found empty, looked at every other millisecond and not before the first, or when `patience`
 * milliseconds are over.
 */
export async function idle(running: ReadonlySet<unknown>, patience: number): Promise<void> {
  const end = performance.now() + patience;
  do await setTimeout(STEP_MS);
  while (running.size > 0 && performance.now() < end);
}
