// Helpers for scripts that run sessions themselves.
import { Tensor } from '../dist/index.js';

/** Zeros for every input; symbolic dimensions other than the batch count as `open`. */
export function feedsOf({ inputMetadata }, open = 224) {
  return Object.fromEntries(
    inputMetadata.map(({ name, type, shape }) => {
      const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? 1 : open));
      const size = dims.reduce((product, length) => product * length, 1);
      return [name, new Tensor(type, Array(size).fill(type === 'bool' ? false : 0), dims)];
    }),
  );
}

/** Milliseconds that `action` takes. */
export async function timed(action) {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

/** Runs of a small network are timed in groups, because of the timer's resolution. */
const SLICE_MS = 20;

/**
 * The median CPU time of one synchronous run of each of two sessions, which take turns, and the median ratio of the second's to
 * the first's. CPU time is least affected by other processes.
 */
export function compareSessions(sessions, feeds, turns) {
  for (const session of sessions) session.runSync(feeds);
  const slice = (session, runs) => {
    const { user } = process.cpuUsage();
    for (let i = 0; i < runs; i++) session.runSync(feeds);
    return (process.cpuUsage().user - user) / 1000 / runs;
  };
  const runs = Math.max(1, Math.round(SLICE_MS / Math.max(0.01, slice(sessions[0], 3))));
  const pairs = [];
  for (let turn = 0; turn < turns; turn++) {
    const times = [];
    for (const index of turn % 2 === 0 ? [0, 1] : [1, 0]) times[index] = slice(sessions[index], runs);
    pairs.push(times);
  }
  const [firstMs, secondMs] = [0, 1].map((index) => median(pairs.map((times) => times[index])));
  return { firstMs, secondMs, ratio: median(pairs.map(([first, second]) => second / first)) };
}

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
