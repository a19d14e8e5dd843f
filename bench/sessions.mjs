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

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
