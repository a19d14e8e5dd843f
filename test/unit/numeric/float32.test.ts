import { nextAbove } from 'lib/numeric/float32.js';

test.each([
  [0, 2 ** -149],
  [-0, 2 ** -149],
  [-(2 ** -149), -0],
  [1, 1 + 2 ** -23],
  [-1, -1 + 2 ** -24],
  [1 - 2 ** -24, 1],
  [2 ** 127 * (2 - 2 ** -23), Number.POSITIVE_INFINITY],
  [Number.POSITIVE_INFINITY, Number.NaN],
])('the float32 above %d is %d', (x, above) => {
  expect(nextAbove(x)).toBe(above);
});
