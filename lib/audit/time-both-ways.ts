import type { SessionControl, TensorMap } from '../skip/observer.js';

/** Runs the item that ran last in full and under the policy, and takes both times. */
export async function timeBothWays(control: SessionControl, feeds: TensorMap, fullFirst: boolean) {
  const timed = async (which: 'runFull' | 'runAgain') => {
    const start = performance.now();
    await control[which](feeds);
    return Number((performance.now() - start).toFixed(4));
  };
  // A run finds its weights in the caches if the run before was of the same kind. Whichever is first has that: the policy's follows the
  // item's own run, and the full one a run that doesn't count.
  if (!fullFirst) return { skipMilliseconds: await timed('runAgain'), milliseconds: await timed('runFull') };
  await control.runFull(feeds);
  return { milliseconds: await timed('runFull'), skipMilliseconds: await timed('runAgain') };
}
