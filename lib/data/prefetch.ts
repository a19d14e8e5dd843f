/**
 * Maps `items` through `load` in order, with at most `ahead` loads under way or waiting behind the item in
 * hand, so that reading and decoding overlap the consumer's work. The first error ends the iteration at its item's turn;
 * when the consumer stops early, loads under way are left to finish and their results are dropped.
 */
export async function* prefetch<T, R>(
  items: Iterable<T>,
  load: (item: T) => Promise<R>,
  ahead = 4,
): AsyncGenerator<R, void, undefined> {
  const queue: Promise<R>[] = [];
  const iterator = items[Symbol.iterator]();
  const fill = () => {
    while (queue.length < ahead) {
      const next = iterator.next();
      if (next.done) return;
      const loading = load(next.value);
      // An error is reported when its turn comes; until then, and after an early stop, it must not count as unhandled.
      loading.catch(() => {});
      queue.push(loading);
    }
  };
  fill();
  while (queue.length > 0) {
    const current = queue.shift()!;
    fill();
    yield await current;
  }
}
