/**
 * Maps `items` through `load` in order. Up to `ahead` items after the current one are loading or loaded, so that reading
 * and decoding overlap the consumer's work. An error ends the iteration when its item is due. When the consumer stops
 * early, pending loads finish and their results are dropped.
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
    // Not every iterator can be asked for the next item before it has returned the previous one.
    const next = previous.then(() => iterator.next());
    previous = next;
    const loading = next.then(async (result) =>
      result.done ? undefined : { loaded: await load(result.value) },
    );
    // An error is reported when its item is due; until then, and after an early stop, it must not count as unhandled.
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
    // Not awaited: it would wait for the pending item, which may never arrive.
    if (!ended) close().catch(() => {});
  }
}
