/** Dynamic quantisation as onnxruntime's quantiser writes it: ranges of activations are taken at run time. */
import { Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { ELEMENT_TYPE, float32s, GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

const ROWS = 3;
const DEPTH = 21;
const COLUMNS = 35;
const X = randomFloats(ROWS * DEPTH, 1).map((v, i) => (i % 5 === 0 ? 2 * v : v));
const BIAS = randomFloats(COLUMNS, 2);

interface Weights {
  readonly data: Int8Array | Uint8Array;
  readonly zeros: Int8Array | Uint8Array;
  readonly scales: Float32Array;
}

function network({ data, zeros, scales }: Weights): Uint8Array {
  const g = new GraphBuilder();
  const x = g.input('x', [ROWS, DEPTH]);
  const [bytes, scale, zero] = g.nodes(
    'DynamicQuantizeLinear',
    [x],
    {},
    {
      name: 'range',
      outputs: ['bytes', 'scale', 'zero'],
    },
  );
  const weight = g.constant(tensor(data, [DEPTH, COLUMNS]));
  const weightZero = g.constant(tensor(zeros, zeros.length === 1 ? [] : [zeros.length]));
  const sums = g.node('MatMulInteger', [bytes!, weight, zero!, weightZero]);
  const factor = g.node('Mul', [
    scale!,
    g.constant(tensor(scales, scales.length === 1 ? [] : [scales.length])),
  ]);
  const real = g.node('Mul', [g.node('Cast', [sums], { to: ELEMENT_TYPE.float32 }), factor]);
  g.output(g.node('Relu', [g.node('Add', [real, g.constant(float32s(...BIAS))])]));
  return modelBytes(g);
}

/** In double precision, but for the range and the bytes, which are defined in float32. */
function expected({ data, zeros, scales }: Weights): number[] {
  const scale = Math.fround(Math.fround(Math.max(0, ...X) - Math.min(0, ...X)) / 255);
  const zero = Math.round(Math.fround((0 - Math.min(0, ...X)) / scale));
  const bytes = Array.from(X, (v) => Math.min(255, Math.max(0, Math.round(Math.fround(v / scale)) + zero)));
  return Array.from({ length: ROWS * COLUMNS }, (_, at) => {
    const [row, column] = [Math.floor(at / COLUMNS), at % COLUMNS];
    let sum = 0;
    for (let k = 0; k < DEPTH; k++) {
      const w = data[k * COLUMNS + column]! - zeros[zeros.length === 1 ? 0 : column]!;
      sum += (bytes[row * DEPTH + k]! - zero) * w;
    }
    return Math.max(0, sum * scale * scales[scales.length === 1 ? 0 : column]! + BIAS[column]!);
  });
}

const noise = (count: number, seed: number) => randomFloats(count, seed);
const signed = (count: number, seed: number) => Int8Array.from(noise(count, seed), (v) => v * 120);
const unsigned = (count: number, seed: number) => Uint8Array.from(noise(count, seed), (v) => 128 + v * 120);
const factors = (count: number) => Float32Array.from({ length: count }, (_, i) => 0.01 + 0.001 * i);

describe.each([
  ['int8', { data: signed(DEPTH * COLUMNS, 3), zeros: Int8Array.of(0), scales: factors(1) }],
  [
    'int8 by column',
    { data: signed(DEPTH * COLUMNS, 4), zeros: new Int8Array(COLUMNS), scales: factors(COLUMNS) },
  ],
  ['uint8', { data: unsigned(DEPTH * COLUMNS, 5), zeros: Uint8Array.of(131), scales: factors(1) }],
  [
    'uint8 by column',
    {
      data: unsigned(DEPTH * COLUMNS, 6),
      zeros: unsigned(COLUMNS, 7),
      scales: factors(COLUMNS),
    },
  ],
] as const)('weights of %s', (_, weights: Weights) => {
  test('make one step with a float result', async () => {
    const model = await loadModel(network(weights));
    const program = compileModel(model, new Map([['x', { dtype: 'float32', shape: [ROWS, DEPTH] }]]));
    const ops = program.steps.map(({ op }) => op).filter((op) => op !== 'reshape');
    expect(ops).toEqual(['dynamicQuantize', 'binary', 'qmatmul']);
  });

  test.each(['native', 'reference'] as const)('are multiplied as defined: %s', async (backend) => {
    await withSession(network(weights), { backend }, async (session) => {
      const outputs = await session.run({ x: new Tensor('float32', X, [ROWS, DEPTH]) });
      const actual = Object.values(outputs)[0]!.data as Float32Array;
      const wanted = expected(weights);
      const largest = Math.max(...wanted);
      expect(actual).toHaveLength(wanted.length);
      for (const [i, v] of wanted.entries()) {
        expect(Math.abs(actual[i]! - v)).toBeLessThanOrEqual(1e-6 * largest);
      }
    });
  });
});

describe('convolutions', () => {
  const [CHANNELS, FILTERS, SIDE] = [5, 19, 6];
  const PIXELS = SIDE * SIDE;
  const image = randomFloats(CHANNELS * PIXELS, 8);
  const zeros = Uint8Array.of(131);
  const weight = unsigned(FILTERS * CHANNELS * 9, 9);
  const bias = randomFloats(FILTERS, 10);
  const WEIGHT_SCALE = 0.01;

  /** 3x3, padded, as onnxruntime's quantiser writes it: the bias is added to each channel of the floats. */
  function convolution(): Uint8Array {
    const g = new GraphBuilder();
    const x = g.input('x', [1, CHANNELS, SIDE, SIDE]);
    const [bytes, scale, zero] = g.nodes(
      'DynamicQuantizeLinear',
      [x],
      {},
      { name: 'range', outputs: ['b', 's', 'z'] },
    );
    const operands = [
      bytes!,
      g.constant(tensor(weight, [FILTERS, CHANNELS, 3, 3])),
      zero!,
      g.constant(tensor(zeros, [])),
    ];
    const sums = g.node('ConvInteger', operands, { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
    const factor = g.node('Mul', [scale!, g.constant(float32s(WEIGHT_SCALE))]);
    const real = g.node('Mul', [g.node('Cast', [sums], { to: ELEMENT_TYPE.float32 }), factor]);
    g.output(g.node('Relu', [g.node('Add', [real, g.constant(tensor(bias, [1, FILTERS, 1, 1]))])]));
    return modelBytes(g);
  }

  function expectedPixels(): number[] {
    const [low, high] = [Math.min(0, ...image), Math.max(0, ...image)];
    const scale = Math.fround(Math.fround(high - low) / 255);
    const zero = Math.round(Math.fround((0 - low) / scale));
    const bytes = Array.from(image, (v) =>
      Math.min(255, Math.max(0, Math.round(Math.fround(v / scale)) + zero)),
    );
    return Array.from({ length: FILTERS * PIXELS }, (_, at) => {
      const [m, h, w] = [Math.floor(at / PIXELS), Math.floor(at / SIDE) % SIDE, at % SIDE];
      let sum = 0;
      for (let k = 0; k < CHANNELS * 9; k++) {
        const [row, column] = [h + (Math.floor(k / 3) % 3) - 1, w + (k % 3) - 1];
        if (row < 0 || row >= SIDE || column < 0 || column >= SIDE) continue;
        const byte = bytes[Math.floor(k / 9) * PIXELS + row * SIDE + column]!;
        sum += (byte - zero) * (weight[m * CHANNELS * 9 + k]! - zeros[0]!);
      }
      const product = Math.fround(sum * Math.fround(scale * Math.fround(WEIGHT_SCALE)));
      return Math.max(0, Math.fround(product + bias[m]!));
    });
  }

  test('make one step with a float result, to which the bias is added', async () => {
    const model = await loadModel(convolution());
    const shape = [1, CHANNELS, SIDE, SIDE];
    const program = compileModel(model, new Map([['x', { dtype: 'float32', shape }]]));
    const ops = program.steps.map(({ op }) => op).filter((op) => op !== 'reshape');
    expect(ops).toEqual(['dynamicQuantize', 'binary', 'qconv']);
  });

  test.each(['native', 'reference'] as const)('are computed as defined: %s', async (backend) => {
    await withSession(convolution(), { backend }, async (session) => {
      const outputs = await session.run({ x: new Tensor('float32', image, [1, CHANNELS, SIDE, SIDE]) });
      const actual = Object.values(outputs)[0]!.data as Float32Array;
      expect(Array.from(actual)).toEqual(expectedPixels());
    });
  });
});
