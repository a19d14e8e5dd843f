/**
 * Maps `items` through `load` in order, with at most `ahead` loads under way or waiting behind the item in
 * hand, so that reading and decoding overlap the consumer's work. The first error ends the iteration at its item's turn;
 * when the consumer stops early, loads under way are left to finish and their results are dropped.
 */
export async function* prefetch<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  load: (item: T) => Promise<R>,
  ahead = 4,
): AsyncGenerator<R, void, undefined> {
  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  const queue: Promise<{ readonly loaded: R } | undefined>[] = [];
  let previous: Promise<unknown> = Promise.resolve();
  const begin = () => {
    // Not every iterator can be asked for the next item before it has given the last.
    const next = previous.then(() => iterator.next());
    previous = next;
    const loading = next.then(async (result) =>
      result.done ? undefined : { loaded: await load(result.value) },
    );
    // An error is reported when its turn comes; until then, and after an early stop, it must not count as unhandled.
    loading.catch(() => {});
    queue.push(loading);
  };
  let ended = false;
  const close = async () => iterator.return?.();
  try {
    for (let i = 0; i < ahead; i++) begin();
    while (true) {
      const current = queue.shift()!;
      begin();
      const result = await current;
      ended = !result;
      if (!result) return;
      yield result.loaded;
    }
  } finally {
    // Not waited for: it would wait for an item that may never come.
    if (!ended) close().catch(() => {});
  }
}
