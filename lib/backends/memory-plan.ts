/** A stretch of memory that is needed from position `first` to position `last`, both included. */
export interface Interval {
  readonly first: number;
  readonly last: number;
  readonly bytes: number;
}

export interface MemoryPlan {
  /** One per interval, in its order. */
  readonly offsets: readonly number[];
  readonly bytes: number;
}

const ALIGNMENT = 64;

/**
 * Assigns each interval an offset so that intervals needed at the same time don't overlap: largest first, each at the
 * lowest free place.
 */
export function planMemory(intervals: readonly Interval[]): MemoryPlan {
  const offsets = new Array<number>(intervals.length).fill(0);
  const placed: { first: number; last: number; start: number; end: number }[] = [];
  const largestFirst = intervals.map((_, i) => i).sort((a, b) => intervals[b]!.bytes - intervals[a]!.bytes);
  let bytes = 0;
  for (const i of largestFirst) {
    const { first, last, bytes: size } = intervals[i]!;
    const aligned = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    let start = 0;
    for (const other of placed) {
      if (other.last < first || last < other.first || other.end <= start) continue;
      if (start + aligned <= other.start) break;
      start = other.end;
    }
    offsets[i] = start;
    placed.push({ first, last, start, end: start + aligned });
    placed.sort((a, b) => a.start - b.start);
    bytes = Math.max(bytes, start + aligned);
  }
  return { offsets, bytes };
}
