import type { SessionControl, TensorMap } from '../skip/observer.js';

/** Runs the item that ran last in full and under the policy, and takes both times. */
export async function timeBothWays(control: SessionControl, feeds: TensorMap, fullFirst: boolean) {
  const timed = async (which: 'runFull' | 'runAgain') => {
    const start = performance.now();
    await control[which](feeds);
    return Number((performance.now() - start).toFixed(4));
  };
  // A run after another of its kind finds its weights in the caches: if it is first, that of the policy follows the item's own run.
  if (fullFirst) await control.runFull(feeds);
  const before = fullFirst ? undefined : await timed('runAgain');
  const milliseconds = await timed('runFull');
  return { milliseconds, skipMilliseconds: before ?? (await timed('runAgain')) };
}
