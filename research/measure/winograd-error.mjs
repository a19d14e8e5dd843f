// Error of Winograd convolution F(4x4, 3x3) for several interpolation points; the table of docs/lab/performance.md.
//   node research/measure/winograd-error.mjs [DRAWS]
// For each number of channels and kind of data: the largest error compared with double-precision sums, divided by the largest
// error of direct convolution in float32; the mean of several draws. It reimplements native/kernels/winograd-inl.h and
// winograd_pack.cc in float32 with variable points.

const draws = Number(process.argv[2] ?? 3);
const POINTS = [
  [11 / 16, 3 / 2],
  [3 / 4, 3 / 2],
  [1, 2],
];
const CHANNELS = [16, 32, 64, 128, 256, 512];
/** Height, width and output channels. */
const SIZE = 16;
const chainOf = (channels) => (channels <= 16 ? 8 : channels <= 32 ? 16 : 32);

const f = Math.fround;
/** Emulates fused multiply-add: the product of two floats is exact in double. */
const fma = (a, b, c) => f(a * b + c);

function generator(seed) {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
  return { uniform: () => 2 * next() - 1, normal, 'after ReLU': () => Math.abs(normal()) };
}

/** Rows of G for the finite points 0, ±a, ±b, and for infinity. */
function filterTransform([a, b], g) {
  const pair = (p, scale) => {
    const [even, odd] = [scale * (g[0] + p * p * g[2]), scale * p * g[1]];
    return [even + odd, even - odd];
  };
  const [aa, bb] = [a * a, b * b];
  return [g[0] / (aa * bb), ...pair(a, 1 / (2 * aa * (aa - bb))), ...pair(b, 1 / (2 * bb * (bb - aa))), g[2]];
}

function inputTransform([a, b], d) {
  const [aa, bb] = [a * a, b * b];
  const [evenA, oddA] = [fma(-bb, d[2], d[4]), fma(-bb, d[1], d[3])];
  const [evenB, oddB] = [fma(-aa, d[2], d[4]), fma(-aa, d[1], d[3])];
  const ends = [0, 1].map((i) => fma(aa * bb, d[i], fma(-(aa + bb), d[i + 2], d[i + 4])));
  return [
    ends[0],
    fma(a, oddA, evenA),
    fma(-a, oddA, evenA),
    fma(b, oddB, evenB),
    fma(-b, oddB, evenB),
    ends[1],
  ];
}

function outputTransform([a, b], p) {
  const [sumA, differenceA] = [f(p[1] + p[2]), f(p[1] - p[2])];
  const [sumB, differenceB] = [f(p[3] + p[4]), f(p[3] - p[4])];
  return [
    f(f(p[0] + sumA) + sumB),
    fma(b, differenceB, f(a * differenceA)),
    fma(b * b, sumB, f(a * a * sumA)),
    fma(b ** 3, differenceB, fma(a ** 3, differenceA, p[5])),
  ];
}

/** Applies `transform` to the columns, then to the rows of a square list of lists. */
function both(transform, points, square) {
  const columns = square[0].map((_, j) =>
    transform(
      points,
      square.map((row) => row[j]),
    ),
  );
  return columns[0].map((_, i) =>
    transform(
      points,
      columns.map((column) => column[i]),
    ),
  );
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

function direct(x, w, channels, oracle) {
  let error = 0;
  for (let m = 0, at = 0; m < SIZE; m++) {
    for (let row = 0; row < SIZE; row++) {
      for (let column = 0; column < SIZE; column++, at++) {
        let [exact, sum] = [0, 0];
        for (let block = 0; block < channels; block += 16) {
          for (let tap = 0; tap < 9; tap++) {
            const offset = (row + Math.floor(tap / 3)) * (SIZE + 2) + column + (tap % 3);
            for (let c = block; c < block + 16; c++) {
              const [value, weight] = [x[c][offset], w[(m * channels + c) * 9 + tap]];
              exact += value * weight;
              sum = fma(value, weight, sum);
            }
          }
        }
        oracle[at] = exact;
        error = Math.max(error, Math.abs(sum - exact));
      }
    }
  }
  return error;
}

function winograd(points, x, w, channels, oracle) {
  const chain = chainOf(channels);
  const u = range(SIZE * channels).map((pair) =>
    both(
      filterTransform,
      points,
      range(3).map((i) => range(3).map((j) => w[pair * 9 + 3 * i + j])),
    )
      .flat()
      .map(f),
  );
  let error = 0;
  for (let row = 0; row < SIZE; row += 4) {
    for (let column = 0; column < SIZE; column += 4) {
      const v = x.map((map) =>
        both(
          inputTransform,
          points,
          range(6).map((i) => range(6).map((j) => map[(row + i) * (SIZE + 2) + column + j])),
        ).flat(),
      );
      for (let m = 0; m < SIZE; m++) {
        const product = range(36).map((point) => {
          let total = 0;
          for (let first = 0; first < channels; first += chain) {
            let sum = 0;
            for (let c = first; c < first + chain; c++)
              sum = fma(v[c][point], u[m * channels + c][point], sum);
            total = f(total + sum);
          }
          return total;
        });
        const y = both(
          outputTransform,
          points,
          range(6).map((i) => product.slice(6 * i, 6 * i + 6)),
        );
        for (const [i, line] of y.entries()) {
          for (const [j, value] of line.entries()) {
            error = Math.max(error, Math.abs(value - oracle[(m * SIZE + row + i) * SIZE + column + j]));
          }
        }
      }
    }
  }
  return error;
}

/** Mean ratios for each of POINTS. */
function ratios(kind, channels) {
  const sums = POINTS.map(() => 0);
  for (let draw = 0; draw < draws; draw++) {
    const random = generator(1000 * draw + channels);
    // The border is a halo of zeros.
    const x = range(channels).map(() =>
      Float32Array.from({ length: (SIZE + 2) ** 2 }, (_, i) => {
        const [row, column] = [Math.floor(i / (SIZE + 2)), i % (SIZE + 2)];
        const inside = row > 0 && row <= SIZE && column > 0 && column <= SIZE;
        return inside ? random[kind]() : 0;
      }),
    );
    const w = Float32Array.from(
      { length: SIZE * channels * 9 },
      kind === 'uniform' ? random.uniform : random.normal,
    );
    const oracle = new Float64Array(SIZE ** 3);
    const reference = direct(x, w, channels, oracle);
    for (const [i, points] of POINTS.entries())
      sums[i] += winograd(points, x, w, channels, oracle) / reference;
  }
  return sums.map((sum) => sum / draws);
}

const kinds = ['normal', 'after ReLU', 'uniform'];
const head = POINTS.flatMap(([a, b]) => kinds.map((kind) => `±${a}, ±${b}: ${kind}`));
console.log(`| channels | ${head.join(' | ')} |`);
console.log(`| ---: |${head.map(() => ' ---: |').join('')}`);
for (const channels of CHANNELS) {
  const columns = kinds.map((kind) => ratios(kind, channels));
  const cells = POINTS.flatMap((_, i) => columns.map((column) => column[i].toFixed(2)));
  console.log(`| ${channels} | ${cells.join(' | ')} |`);
}
