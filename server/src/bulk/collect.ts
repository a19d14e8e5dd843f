import { IdFile, idOf, LineAppender } from './line-file.js';
import type { BulkQueue } from './queue.js';
import { pause } from './queue.js';

const POLL_MS = 500;

/**
 * Appends the answers of a queue to a file, each exactly once, even if earlier attempts were interrupted. The queue may
 * forget answers that are safely in the file. Only one process at a time may write to a file.
 * @param follow wait for more answers until no job is left
 * @returns the number of answers added
 */
export async function collectResults(
  queue: BulkQueue,
  path: string,
  { follow, signal }: { follow: boolean; signal: AbortSignal },
): Promise<number> {
  const file = await LineAppender.open(path);
  const known = await new IdFile(path).refresh();
  let added = 0;
  try {
    for (;;) {
      // Count first, then read: an answer that arrives in between isn't missed.
      const { waiting, running } = await queue.counts();
      for await (const lines of queue.results()) {
        const ids = lines.map((line) => idOf(Buffer.from(line))!);
        const fresh = lines.filter((_, i) => known.add(ids[i]!));
        await Promise.all(fresh.map((line) => file.append(line)));
        if (ids.length > 0) await queue.collected(ids);
        added += fresh.length;
        if (signal.aborted) break;
      }
      if (!follow || signal.aborted || waiting + running === 0) return added;
      await pause(POLL_MS, signal);
    }
  } finally {
    await file.close();
  }
}
