/** Arithmetic on concrete shapes. */
export type Shape = readonly number[];

/** How many elements a tensor of that shape has. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (let axis = 0; axis < shape.length; axis++) size *= shape[axis]!;
  return size;
}

export function sameShape(a: Shape, b: Shape): boolean {
  let same = a.length === b.length;
  for (let axis = 0; same && axis < a.length; axis++) same = a[axis] === b[axis];
  return same;
}

/** The shape that numpy broadcasts `shapes` to; undefined when they don't fit together. */
export function broadcast(...shapes: readonly Shape[]): number[] | undefined {
  let rank = 0;
  for (const { length } of shapes) rank = Math.max(rank, length);
  const result = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (let axis = rank - shape.length, i = 0; axis < rank; axis++, i++) {
      const length = shape[i]!;
      if (result[axis] === 1) result[axis] = length;
      else if (length !== 1 && length !== result[axis]) return undefined;
    }
  }
  return result;
}

export function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
