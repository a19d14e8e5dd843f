/**
 * More data to fit on: the full network labels any image, so its answers to shifted and mirrored copies teach the
 * heads as well as its answers to the images themselves.
 */

/** Largest shift, as a fraction of a side. */
const REACH = 1 / 8;

/**
 * A copy of an image, shifted by up to an eighth of its sides and possibly mirrored; the border is repeated outwards.
 */
export function altered(
  image: Float32Array,
  [channels, height, width]: readonly [number, number, number],
  mirror: boolean,
  random: () => number,
): Float32Array {
  const shift = (side: number) => Math.round((2 * random() - 1) * REACH * side);
  const [down, right] = [shift(height), shift(width)];
  const copy = new Float32Array(image.length);
  const inside = (at: number, side: number) => Math.min(side - 1, Math.max(0, at));
  for (let row = 0; row < channels * height; row++) {
    const from = (row - (row % height) + inside((row % height) + down, height)) * width;
    for (let x = 0; x < width; x++) {
      copy[row * width + x] = image[from + inside((mirror ? width - 1 - x : x) + right, width)]!;
    }
  }
  return copy;
}
