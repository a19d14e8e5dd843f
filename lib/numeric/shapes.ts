/** Arithmetic on concrete shapes. */
export type Shape = readonly number[];

/** How many elements a tensor of that shape has. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const length of shape) size *= length;
  return size;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((length, axis) => length === b[axis]);
}

/** The shape that numpy broadcasts `shapes` to; undefined when they don't fit together. */
export function broadcast(...shapes: readonly Shape[]): number[] | undefined {
  const rank = shapes.reduce((max, shape) => Math.max(max, shape.length), 0);
  const result = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (const [i, length] of shape.entries()) {
      const axis = rank - shape.length + i;
      if (length === 1 || length === result[axis]) continue;
      if (result[axis] !== 1) return undefined;
      result[axis] = length;
    }
  }
  return result;
}

export function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
