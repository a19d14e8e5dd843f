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
  for (let i = 0; i < shapes.length; i++) rank = Math.max(rank, shapes[i]!.length);
  const result = new Array<number>(rank).fill(1);
  for (let i = 0; i < shapes.length; i++) if (!widen(result, shapes[i]!)) return undefined;
  return result;
}

/** Makes `result` what it and `shape`, which has no more axes, are broadcast to; false if they don't fit together. */
function widen(result: number[], shape: Shape): boolean {
  const missing = result.length - shape.length;
  for (let i = 0; i < shape.length; i++) {
    const length = shape[i]!;
    if (result[missing + i] === 1) result[missing + i] = length;
    else if (length !== 1 && length !== result[missing + i]) return false;
  }
  return true;
}

export function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
