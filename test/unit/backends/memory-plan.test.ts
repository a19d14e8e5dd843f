import fc from 'fast-check';
import { planMemory } from 'lib/backends/memory-plan.js';

const interval = fc
  .record({ first: fc.nat(20), length: fc.nat(6), bytes: fc.nat(1000) })
  .map(({ first, length, bytes }) => ({ first, last: first + length, bytes }));

test('what is needed at the same time never overlaps, and everything lies inside the arena', () => {
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 30 }), (intervals) => {
      const { offsets, bytes } = planMemory(intervals);
      for (const [i, a] of intervals.entries()) {
        expect(offsets[i]! % 64).toBe(0);
        expect(offsets[i]! + a.bytes).toBeLessThanOrEqual(bytes);
        for (const [j, b] of intervals.entries()) {
          if (i === j || a.last < b.first || b.last < a.first || a.bytes === 0 || b.bytes === 0) continue;
          expect(offsets[i]! + a.bytes <= offsets[j]! || offsets[j]! + b.bytes <= offsets[i]!).toBe(true);
        }
      }
    }),
    { seed: 1 },
  );
});

test('a chain of layers needs the memory of two', () => {
  const layers = Array.from({ length: 10 }, (_, i) => ({ first: i, last: i + 1, bytes: 640 }));
  expect(planMemory(layers).bytes).toBe(1280);
});
