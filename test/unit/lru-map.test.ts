import { LruMap } from 'lib/util/lru-map.js';
import { keepRecent } from 'lib/util/maps.js';

test('the entry that was used longest ago goes first, and is disposed of', () => {
  const dropped: number[] = [];
  const map = new LruMap<number>(2, (value) => void dropped.push(value));
  map.set('a', 1);
  map.set('b', 2);
  expect(map.get('a')).toBe(1);
  map.set('c', 3);
  expect(dropped).toEqual([2]);
  expect([map.get('a'), map.get('b'), map.get('c')]).toEqual([1, undefined, 3]);
});

test('to peek is no use', () => {
  const map = new LruMap<number>(2);
  map.set('a', 1);
  map.set('b', 2);
  expect(map.peek('a')).toBe(1);
  map.set('c', 3);
  expect(map.peek('a')).toBeUndefined();
});

test('clear disposes of all', () => {
  const dropped: number[] = [];
  const map = new LruMap<number>(2, (value) => void dropped.push(value));
  map.set('a', 1);
  map.set('b', 2);
  map.clear();
  expect(dropped).toEqual([1, 2]);
  expect(map.get('a')).toBeUndefined();
});

test('keepRecent drops the entry that was made first', () => {
  const map = new Map<string, number>();
  expect(['a', 'b', 'c'].map((key, i) => keepRecent(map, key, i, 2))).toEqual([0, 1, 2]);
  expect([...map]).toEqual([
    ['b', 1],
    ['c', 2],
  ]);
});
