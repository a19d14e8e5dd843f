/**
 * Walks strided views row by row. Adjacent axes that are contiguous in every operand are merged first, so that the
 * innermost row is as long as the views allow.
 */
export interface Rows {
  /** Length of a row. */
  readonly length: number;
  /** Distance between the elements of a row, for every operand. */
  readonly steps: readonly number[];
  readonly outerShape: readonly number[];
  /** Per operand, the strides over `outerShape`. */
  readonly outerStrides: readonly (readonly number[])[];
}

/** `strides` holds, for every operand, its strides over `shape`. */
export function planRows(shape: readonly number[], strides: readonly (readonly number[])[]): Rows {
  const merged: number[] = [];
  const mergedStrides: number[][] = strides.map(() => []);
  for (let axis = 0; axis < shape.length; axis++) {
    const dim = shape[axis]!;
    if (dim === 1) continue;
    const last = merged.length - 1;
    if (last >= 0 && strides.every((s, i) => mergedStrides[i]![last] === s[axis]! * dim)) {
      merged[last] = merged[last]! * dim;
      for (const [i, s] of strides.entries()) mergedStrides[i]![last] = s[axis]!;
    } else {
      merged.push(dim);
      for (const [i, s] of strides.entries()) mergedStrides[i]!.push(s[axis]!);
    }
  }
  const length = merged.pop() ?? 1;
  const steps = mergedStrides.map((s) => s.pop() ?? 0);
  return { length, steps, outerShape: merged, outerStrides: mergedStrides };
}

/** Calls `row` with the offset of the row's first element in every operand. */
export function forEachRow(rows: Rows, row: (offsets: readonly number[]) => void): void {
  const { outerShape, outerStrides } = rows;
  let count = 1;
  for (const dim of outerShape) count *= dim;
  if (rows.length === 0) return;
  const counter = new Array<number>(outerShape.length).fill(0);
  const offsets = new Array<number>(outerStrides.length).fill(0);
  for (let index = 0; index < count; index++) {
    row(offsets);
    for (let axis = outerShape.length - 1; axis >= 0; axis--) {
      const dim = outerShape[axis]!;
      const wraps = ++counter[axis]! === dim;
      for (let i = 0; i < offsets.length; i++) {
        offsets[i]! += wraps ? outerStrides[i]![axis]! * (1 - dim) : outerStrides[i]![axis]!;
      }
      if (!wraps) break;
      counter[axis] = 0;
    }
  }
}
