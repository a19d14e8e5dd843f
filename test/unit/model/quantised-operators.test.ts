/** Operators of quantised files: weights of four bits, and what is wrong with scales and zero points. */
import { ResidualSkipError, Tensor } from 'lib/index.js';
import type { TensorProto } from 'lib/model/read/proto.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { runOnnx } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

const run = (bytes: Uint8Array, x: Float32Array, shape: readonly number[]) =>
  withSession(bytes, { backend: 'native' }, async (session) => {
    const outputs = await session.run({ x: new Tensor('float32', x, shape) });
    return [...(Object.values(outputs)[0]!.data as Float32Array)];
  });

/** The error of creating a session. */
async function refusal(bytes: Uint8Array): Promise<{ code: string; message: string }> {
  const error = await withSession(bytes, {}, async () => undefined).catch((thrown: unknown) => thrown);
  if (!(error instanceof ResidualSkipError)) throw new Error(`no refusal: ${error}`);
  return { code: error.code, message: error.message };
}

/** Two numbers of four bits in each byte, the first one in the low half. */
function packed(numbers: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: Math.ceil(numbers.length / 2) }, (_, i) => {
    return (numbers[2 * i]! & 15) | (((numbers[2 * i + 1] ?? 0) & 15) << 4);
  });
}

const ONNX_UINT4 = 21;
const ONNX_INT4 = 22;
const nibbles = (dataType: number, numbers: readonly number[], dims: readonly number[]): TensorProto => ({
  ...int64s(),
  dataType,
  dims: tensor(Uint8Array.of(), dims).dims!,
  rawData: packed(numbers),
});

const closeTo = (actual: readonly number[], expected: readonly number[]) => {
  expect(actual).toHaveLength(expected.length);
  for (const [i, v] of expected.entries()) expect(actual[i]).toBeCloseTo(v, 5);
};

describe.each([
  ['int4', ONNX_INT4, -8],
  ['uint4', ONNX_UINT4, 0],
] as const)('weights of %s (opset 21)', (_, type, least) => {
  test('are the numbers that they stand for', async () => {
    const [depth, columns] = [5, 3];
    const numbers = Array.from({ length: depth * columns }, (_each, i) => least + ((7 * i) % 16));
    const zeros = [2, 0, 5];
    const scales = [0.5, 0.25, 0.125];
    const g = new GraphBuilder();
    const x = g.input('x', [2, depth]);
    const parts = [
      nibbles(type, numbers, [depth, columns]),
      float32s(...scales),
      nibbles(type, zeros, [columns]),
    ];
    const constants = parts.map((part) => g.constant(part));
    g.output(g.node('MatMul', [x, g.node('DequantizeLinear', constants, { axis: 1 })]));
    const data = randomFloats(2 * depth, 1);
    const expected = Array.from({ length: 2 * columns }, (_each, at) => {
      const [row, column] = [Math.floor(at / columns), at % columns];
      let sum = 0;
      for (let k = 0; k < depth; k++)
        sum += data[row * depth + k]! * (numbers[k * columns + column]! - zeros[column]!) * scales[column]!;
      return sum;
    });
    closeTo(await run(modelBytes(g, 21), data, [2, depth]), expected);
  });
});

describe('MatMulNBits', () => {
  const [depth, columns, block] = [40, 3, 16];
  const count = Math.ceil(depth / block);
  const attributes = { K: depth, N: columns, block_size: block, bits: 4 };
  const numbers = Array.from({ length: columns * count * block }, (_, i) => (11 * i) % 16);
  const scales = Array.from({ length: columns * count }, (_, i) => 0.1 + 0.05 * i);
  const zeros = Array.from({ length: columns * count }, (_, i) => (3 * i) % 16);

  function network(parts: readonly TensorProto[], given: Record<string, number> = attributes): Uint8Array {
    const g = new GraphBuilder();
    const x = g.input('x', [2, depth]);
    const inputs = [x, ...parts.map((part) => g.constant(part))];
    g.output(g.nodes('MatMulNBits', inputs, given, { domain: 'com.microsoft' })[0]!);
    return modelBytes(g);
  }
  const weight = tensor(packed(numbers), [columns, count, block / 2]);

  test.each([false, true])('is a product with the widened weights (zero points: %s)', async (given) => {
    // Each column's zero points begin at a byte of their own.
    const rows = Array.from({ length: columns }, (_, n) => [
      ...packed(zeros.slice(n * count, (n + 1) * count)),
    ]);
    const parts = [weight, float32s(...scales), ...(given ? [tensor(Uint8Array.from(rows.flat()))] : [])];
    const x = randomFloats(2 * depth, 2);
    const expected = Array.from({ length: 2 * columns }, (_, at) => {
      const [row, column] = [Math.floor(at / columns), at % columns];
      let sum = 0;
      for (let k = 0; k < depth; k++) {
        const b = column * count + Math.floor(k / block);
        const whole = numbers[column * count * block + k]! - (given ? zeros[b]! : 8);
        sum += x[row * depth + k]! * whole * scales[b]!;
      }
      return sum;
    });
    closeTo(await run(network(parts), x, [2, depth]), expected);
  });

  test.each([
    ['too few scales', network([weight, float32s(1, 2)])],
    ['bits that are no width', network([weight, float32s(...scales)], { ...attributes, bits: 3 })],
    ['blocks of nothing', network([weight, float32s(...scales)], { ...attributes, block_size: 0 })],
    ['too many columns', network([weight, float32s(...scales)], { ...attributes, N: 2 ** 30 })],
    ['too few zero points', network([weight, float32s(...scales), tensor(Uint8Array.of(1))])],
  ])('refuses %s', async (_, bytes) => {
    expect(await refusal(bytes)).toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining('MatMulNBits'),
    });
  });
});

describe('scales and zero points that are none', () => {
  interface Layer {
    readonly scale?: TensorProto;
    readonly zero?: TensorProto;
    readonly weightScale?: TensorProto;
    readonly weightZero?: TensorProto;
  }

  function layer({ scale, zero, weightScale, weightZero }: Layer): Uint8Array {
    const g = new GraphBuilder();
    const scaling = [scale ?? tensor(Float32Array.of(0.1), []), zero ?? tensor(Uint8Array.of(3), [])];
    const [factor, centre] = scaling.map((part) => g.constant(part)) as [string, string];
    const bytes = g.node('QuantizeLinear', [g.input('x', [1, 2, 4, 4]), factor, centre]);
    const x = g.node('DequantizeLinear', [bytes, factor, centre]);
    const parts = [
      tensor(new Int8Array(6).fill(5), [3, 2, 1, 1]),
      weightScale ?? float32s(0.1, 0.2, 0.3),
      weightZero ?? tensor(new Int8Array(3)),
    ];
    const weight = g.node(
      'DequantizeLinear',
      parts.map((part) => g.constant(part)),
      { axis: 0 },
    );
    g.output(g.node('Conv', [x, weight]));
    return modelBytes(g);
  }

  test('the layer itself is accepted', async () => {
    await expect(withSession(layer({}), {}, async () => 'runs')).resolves.toBe('runs');
  });

  test.each([
    ['a scale of 0', { scale: tensor(Float32Array.of(0), []) }, 'its scale holds 0'],
    ['a scale of NaN', { scale: tensor(Float32Array.of(Number.NaN), []) }, 'its scale holds NaN'],
    ['an infinite scale', { scale: tensor(Float32Array.of(Infinity), []) }, 'its scale holds Infinity'],
    ['a negative scale', { scale: tensor(Float32Array.of(-0.1), []) }, 'its scale holds -0.1'],
    ['a scale of 0 among those of channels', { weightScale: float32s(0.1, 0, 0.3) }, 'its scale holds 0'],
    ['a zero point beyond uint8', { zero: tensor(Int32Array.of(300), []) }, 'its output is int32'],
    ['a zero point of another type', { weightZero: tensor(new Uint8Array(3)) }, 'its zero point is uint8'],
    ['too few scales of channels', { weightScale: float32s(0.1, 0.2) }, 'its scale [2]'],
    ['too many zero points of channels', { weightZero: tensor(new Int8Array(4)) }, 'its zero point [4]'],
    ['zero points for one scale', { zero: tensor(new Uint8Array(2)) }, 'its zero point [2]'],
  ])('%s', async (_, parts, problem) => {
    expect(await refusal(layer(parts))).toMatchObject({
      code: expect.stringMatching(/^(MODEL_INVALID|UNSUPPORTED_MODEL)$/),
      message: expect.stringContaining(problem),
    });
  });
});

describe.each(['reference', 'native'] as const)('on the %s backend', (backend) => {
  /** A float32 as an integer, in units of 2^-149. */
  const exact = (value: number) => BigInt(value * 2 ** 149);
  const UNIT = 2n ** 149n;

  /** The nearest integer to a / b, of two equally near ones the even one; b is positive. */
  function nearest(a: bigint, b: bigint): number {
    const rest = ((a % b) + b) % b;
    const below = (a - rest) / b;
    return Number(2n * rest > b || (2n * rest === b && below % 2n !== 0n) ? below + 1n : below);
  }

  test.each([
    ['int8', -3, 5],
    ['uint8', 125, 133],
  ] as const)(
    'layers of %s by int8 with a scale for each channel are those of exact arithmetic',
    async (type, xZero, yZero) => {
      const [channels, filters, size] = [5, 12, 9];
      const Bytes = type === 'int8' ? Int8Array : Uint8Array;
      const low = type === 'int8' ? -128 : 0;
      const [xScale, yScale] = Float32Array.of(0.021, 0.043);
      const scales = randomFloats(filters, 1).map((v) => 0.004 + 0.003 * v);
      const biasScales = scales.map((scale) => scale * xScale!);
      const weights = Int8Array.from(randomFloats(filters * channels * 9, 2), (v) => v * 127);
      const bias = Int32Array.from(randomFloats(filters, 3), (v) => v * 4000);
      const bytes = Bytes.from(
        Array.from(randomFloats(channels * size * size, 4), (v) => low + 128 + v * 127),
      );

      const g = new GraphBuilder();
      const scaled = (data: string, ...scaling: TensorProto[]) => {
        const constants = scaling.map((each) => g.constant(each));
        return g.node('DequantizeLinear', [data, ...constants], { axis: 0 });
      };
      const x = scaled(
        g.input('x', [1, channels, size, size], type),
        tensor(Float32Array.of(xScale!), []),
        tensor(Bytes.of(xZero), []),
      );
      const w = scaled(g.constant(tensor(weights, [filters, channels, 3, 3])), tensor(scales));
      const sum = g.node('Conv', [x, w, scaled(g.constant(tensor(bias)), tensor(biasScales))], {
        pads: [1, 1, 1, 1],
      });
      const target = [tensor(Float32Array.of(yScale!), []), tensor(Bytes.of(yZero), [])].map((each) =>
        g.constant(each),
      );
      g.output(g.node('QuantizeLinear', [sum, ...target]), [1, filters, size, size], type);
      const feeds = { x: new Tensor(type, bytes as Uint8Array, [1, channels, size, size]) as Tensor };
      const [y] = Object.values(await runOnnx(g, feeds, 17, backend));

      const expected = Array.from({ length: filters * size * size }, (_, at) => {
        const [f, row, column] = [Math.floor(at / size ** 2), Math.floor(at / size) % size, at % size];
        let products = 0;
        for (let tap = 0; tap < channels * 9; tap++) {
          const [c, i, j] = [
            Math.floor(tap / 9),
            row + (Math.floor(tap / 3) % 3) - 1,
            column + (tap % 3) - 1,
          ];
          const inside = i >= 0 && i < size && j >= 0 && j < size;
          if (inside)
            products += (bytes[(c * size + i) * size + j]! - xZero) * weights[f * channels * 9 + tap]!;
        }
        const real =
          BigInt(products) * exact(xScale!) * exact(scales[f]!) +
          BigInt(bias[f]!) * exact(biasScales[f]!) * UNIT;
        return Math.min(Math.max(nearest(real, exact(yScale!) * UNIT) + yZero, low), low + 255);
      });
      expect([...(y!.data as Int8Array)]).toEqual(expected);
      expect(new Set(expected).size).toBeGreaterThan(200);
    },
  );

  /** What onnxruntime gives: it divides by the whole kernel, unlike for AveragePool. */
  test('QLinearAveragePool counts what a window covers beyond the padding', async () => {
    const g = new GraphBuilder();
    const scaling = [tensor(Float32Array.of(1), []), tensor(Uint8Array.of(0), [])].map((each) =>
      g.constant(each),
    );
    const attributes = {
      kernel_shape: [3, 3],
      strides: [2, 2],
      pads: [1, 1, 1, 1],
      ceil_mode: 1,
      count_include_pad: 1,
    };
    const operands = [g.input('x', [1, 1, 4, 4], 'uint8'), ...scaling, ...scaling];
    g.nodes('QLinearAveragePool', operands, attributes, { outputs: ['y'], domain: 'com.microsoft' });
    g.output('y', [1, 1, 3, 3], 'uint8');
    const x = Uint8Array.from({ length: 16 }, (_, i) => 10 * (i + 1));
    const [y] = Object.values(await runOnnx(g, { x: new Tensor('uint8', x, [1, 1, 4, 4]) }, 17, backend));
    expect([...(y!.data as Uint8Array)]).toEqual([16, 33, 13, 63, 110, 40, 30, 50, 18]);
  });
});

test('a map that floats have computed becomes bytes in its blocks of channels: other sizes, several items', async () => {
  const [items, inputs, channels, filters, height, width] = [2, 3, 20, 5, 9, 7];
  const g = new GraphBuilder();
  const x = g.input('x', [items, inputs, height, width]);
  // Sums of these are exact: both backends have the same floats.
  const eighths = (count: number, seed: number) =>
    Float32Array.from(randomFloats(count, seed), (v) => Math.round(8 * v) / 8);
  const weights = g.constant(tensor(eighths(channels * inputs * 9, 2), [channels, inputs, 3, 3]));
  const map = g.node('Relu', [g.node('Conv', [x, weights], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] })]);
  const scale = g.constant(tensor(Float32Array.of(0.0625), []));
  const zero = g.constant(tensor(Uint8Array.of(3), []));
  const bytes = g.node('QuantizeLinear', [map, scale, zero]);
  const seven = Int8Array.from(randomFloats(filters * channels, 3), (v) => Math.round(7 * v));
  const operands = [
    ...[bytes, scale, zero, g.constant(tensor(seven, [filters, channels, 1, 1]))],
    ...[scale, g.constant(tensor(Int8Array.of(0), [])), scale, zero],
  ];
  g.output(
    g.node('DequantizeLinear', [g.node('QLinearConv', operands, { kernel_shape: [1, 1] }), scale, zero]),
  );
  g.output(g.node('DequantizeLinear', [bytes, scale, zero]));
  const file = modelBytes(g);
  const feeds = {
    x: new Tensor('float32', eighths(items * inputs * height * width, 4), [items, inputs, height, width]),
  };
  const [native, reference] = await Promise.all(
    (['native', 'reference'] as const).map((backend) =>
      withSession(file, { backend }, async (session) =>
        Object.values(await session.run(feeds)).map(({ data }) => [...(data as Float32Array)]),
      ),
    ),
  );
  expect(native).toEqual(reference);
  expect(new Set(native!.flat()).size).toBeGreaterThan(20);
});
