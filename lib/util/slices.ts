/**
 * Work that can be cut into slices, so that it doesn't block the event loop: a generator that yields wherever something else may come
 * in between. Reading and lowering are such work. Another thread would need copies of what every later compilation shares: weights,
 * and what was computed of them.
 */
export type Sliced<T> = Generator<undefined, T, undefined>;

/** How long a slice takes before the event loop has its turn. A step of the work may take longer. */
const SLICE_MS = 4;

/** When the slice under way began, in milliseconds; NaN outside of slices, which are never due. */
let sliceStart = Number.NaN;

/**
 * Whether the slice under way should end. A loop of many small steps asks this before it yields: that goes through every generator
 * around it. The clock is the cheapest, as it is asked thousands of times; if it is set back meanwhile, the slice ends.
 */
export function isDue(): boolean {
  const passed = Date.now() - sliceStart;
  return passed >= SLICE_MS || passed < 0;
}

/** Does all work in one go, on the calling thread. */
export function atOnce<T>(work: Sliced<T>): T {
  const outer = sliceStart;
  sliceStart = Number.NaN;
  try {
    for (;;) {
      const { done, value } = work.next();
      if (done) return value;
    }
  } finally {
    sliceStart = outer;
  }
}

/** Does the work in turns with the event loop. The first slice begins at once. */
export async function inTurns<T>(work: Sliced<T>): Promise<T> {
  for (;;) {
    sliceStart = Date.now();
    do {
      const { done, value } = work.next();
      if (done) return value;
    } while (!isDue());
    await new Promise(setImmediate);
  }
}
