import fc from 'fast-check';
import { prefetch } from 'lib/data/prefetch.js';

const tick = () => new Promise((resolve) => setImmediate(resolve));

test('keeps the order, whatever order loads end in', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(4)), fc.integer({ min: 1, max: 6 }), async (delays, ahead) => {
      const items = delays.map((ticks, index) => ({ ticks, index }));
      const load = async (item: { ticks: number; index: number }) => {
        for (let i = 0; i < item.ticks; i++) await tick();
        return item.index;
      };
      const seen: number[] = [];
      for await (const index of prefetch(items, load, ahead)) seen.push(index);
      expect(seen).toEqual(items.map(({ index }) => index));
    }),
  );
});

test('has at most `ahead` results under way or waiting', async () => {
  let started = 0;
  let consumed = 0;
  let most = 0;
  const load = async (item: number) => {
    started++;
    most = Math.max(most, started - consumed);
    return item;
  };
  for await (const _ of prefetch(Array(20).keys(), load, 3)) {
    await tick();
    consumed++;
  }
  expect(started).toBe(20);
  // The one in the consumer's hands and three ahead of it.
  expect(most).toBe(4);
});

test('an error comes at its turn, and what follows it is not unhandled', async () => {
  const load = async (item: number) => {
    if (item >= 2) throw new Error(`item ${item}`);
    return item;
  };
  const seen: number[] = [];
  const consume = async () => {
    for await (const item of prefetch([0, 1, 2, 3, 4], load, 5)) {
      await tick();
      seen.push(item);
    }
  };
  await expect(consume()).rejects.toThrow('item 2');
  expect(seen).toEqual([0, 1]);
});

test('stops loading when the consumer stops', async () => {
  let started = 0;
  const load = async (item: number) => {
    started++;
    return item;
  };
  for await (const item of prefetch(Array(100).keys(), load, 2)) if (item === 5) break;
  expect(started).toBeLessThan(10);
});
