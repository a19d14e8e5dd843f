/**
 * Windows on an axis of which only the means of cells are known. A window's sum is predicted from the means around it with the least
 * expected square error, if the difference of two elements grows with their distance as that of a random walk, which is a good description
 * of photographs (kriging with a linear variogram).
 */
/** Weights of elements that follow each other, which add up to 1. */
export interface Window {
  readonly first: number;
  readonly weights: readonly number[];
}

/** Cells that are looked at on each side of a window. */
const AROUND = 1;

/** The same windows over cells of `each` elements; the axis has `length` elements. */
export function windowsOfMeans(windows: readonly Window[], length: number, each: number): Window[] {
  const cells = Math.ceil(length / each);
  const inverses = new Map<number, readonly Float64Array[]>();
  return windows.map(({ first, weights }) => {
    const begin = Math.max(0, Math.floor(first / each) - AROUND);
    const end = Math.min(cells, Math.floor((first + weights.length - 1) / each) + 1 + AROUND);
    const count = end - begin;
    const inverse = inverses.get(count) ?? inverseOf(count, each);
    inverses.set(count, inverse);
    const toWindow = Array.from({ length: count }, (_, i) =>
      weights.reduce((sum, weight, x) => sum - weight * toElement((begin + i) * each, each, first + x), 0),
    );
    // The last equation makes the weights add up to 1.
    toWindow.push(1);
    const predicted = Array.from({ length: count }, (_, i) =>
      toWindow.reduce((sum, value, j) => sum + inverse[i]![j]! * value, 0),
    );
    return { first: begin, weights: predicted };
  });
}

/** Mean distance of an element and those of a cell. */
function toElement(cell: number, each: number, element: number): number {
  const at = element - cell;
  if (at < 0 || at >= each) return Math.abs(at - (each - 1) / 2);
  return (at * (at + 1) + (each - 1 - at) * (each - at)) / 2 / each;
}

/** The inverse of the equations for `count` cells: negative mean distances, bordered by ones. */
function inverseOf(count: number, each: number): readonly Float64Array[] {
  const size = count + 1;
  const inner = (each * each - 1) / (3 * each);
  const rows = Array.from({ length: size }, (_, i) => {
    const row = new Float64Array(2 * size);
    for (let j = 0; j < size; j++) {
      if (i === count || j === count) row[j] = i === j ? 0 : 1;
      else row[j] = i === j ? -inner : -each * Math.abs(i - j);
    }
    row[size + i] = 1;
    return row;
  });
  for (let k = 0; k < size; k++) {
    let pivot = k;
    for (let i = k + 1; i < size; i++) if (Math.abs(rows[i]![k]!) > Math.abs(rows[pivot]![k]!)) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot]!, rows[k]!];
    const by = rows[k]![k]!;
    rows[k] = rows[k]!.map((value) => value / by);
    for (let i = 0; i < size; i++) {
      if (i === k) continue;
      const factor = rows[i]![k]!;
      rows[i] = rows[i]!.map((value, j) => value - factor * rows[k]![j]!);
    }
  }
  return rows.map((row) => row.subarray(size));
}
