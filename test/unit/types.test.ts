/** Element types of inputs and outputs: what is computed as it is, and what in float32. */
import { InferenceSession, Tensor, toFloat32 } from 'lib/index.js';
import { float16ToNumber, narrowToFloat16, numberToFloat16, widenFloat16 } from 'lib/numeric/float16.js';
import type { DataType } from 'lib/tensor/tensor.js';
import { ELEMENT_TYPE, type ElementTypeName, GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';

const BACKENDS = ['reference', 'native'] as const;
const onnxName = (type: DataType) => (type === 'float64' ? 'double' : type) as ElementTypeName;

async function run(
  graph: GraphBuilder,
  feeds: Record<string, Tensor>,
  backend: (typeof BACKENDS)[number],
): Promise<Tensor> {
  const session = await InferenceSession.create(modelBytes(graph), { backend, threads: 1 });
  try {
    return (await session.run(feeds))[session.outputNames[0]!]!;
  } finally {
    await session.release();
  }
}

/** y = op(a, b) in one type. */
function pair(op: string, type: DataType, result: DataType = type): GraphBuilder {
  const graph = new GraphBuilder();
  graph.input('a', ['n'], onnxName(type));
  graph.input('b', ['n'], onnxName(type));
  graph.nodes(op, ['a', 'b'], {}, { outputs: ['y'] });
  return graph.output('y', ['n'], onnxName(result));
}

describe('float16', () => {
  const all = Array.from({ length: 2 ** 16 }, (_, bits) => bits);
  const finite = all.filter((bits) => (bits & 0x7c00) !== 0x7c00);

  test('every number is its own nearest float16', () => {
    expect(finite.filter((bits) => numberToFloat16(float16ToNumber(bits)) !== bits)).toEqual([]);
    expect(float16ToNumber(numberToFloat16(Number.NaN))).toBeNaN();
    expect(numberToFloat16(Number.POSITIVE_INFINITY)).toBe(0x7c00);
  });

  test('the middle between two goes to the even one, all else to the nearer one', () => {
    const wrong = finite.filter((bits) => {
      if (bits >= 0x7c00) return false;
      // The number behind the largest is where infinity begins.
      const [below, above] = [float16ToNumber(bits), bits === 0x7bff ? 65536 : float16ToNumber(bits + 1)];
      const [middle, step] = [(below + above) / 2, 2 ** -12 * (above - below)];
      const nearest = [middle, middle - step, middle + step, -middle - step].map(numberToFloat16);
      const even = bits + (bits % 2);
      return nearest.join() !== [even, bits, bits + 1, 0x8000 | (bits + 1)].join();
    });
    expect(wrong).toEqual([]);
    expect(numberToFloat16(2 ** -25 + 2 ** -48)).toBe(1);
  });
});

describe.each(BACKENDS)('types of tensors on %s', (backend) => {
  test.each(['float16', 'float64'] as const)('%s is computed in float32', async (type) => {
    const graph = pair('Add', type);
    const session = await InferenceSession.create(modelBytes(graph), { backend, threads: 1 });
    expect(session.inputMetadata[0]).toEqual({ name: 'a', isTensor: true, type, shape: ['n'] });
    expect(session.outputMetadata[0]!.type).toBe(type);
    const feeds = { a: new Tensor(type, [1.5, -2, 0.25], [3]), b: new Tensor(type, [0.5, 8, 0.125], [3]) };
    const { y } = await session.run(feeds);
    expect([y!.type, y!.data.constructor]).toEqual([type, new Tensor(type, []).data.constructor]);
    expect(Array.from(toFloat32(y as Tensor<typeof type>).data)).toEqual([2, 6, 0.375]);
    // A tensor of the caller's is filled, and float32 is taken, too.
    const target = new Tensor(type, [0, 0, 0], [3]);
    const wide = { a: toFloat32(feeds.a as never), b: toFloat32(feeds.b as never) };
    const filled = await session.run(wide, { y: target });
    expect(filled.y).toBe(target);
    expect(target.data).toEqual(y!.data);
    await expect(session.run({ ...feeds, a: new Tensor('int32', [1, 2, 3]) })).rejects.toMatchObject({
      code: 'INVALID_DTYPE',
      message: expect.stringContaining(`expected ${type}[n], received int32[3]`),
    });
    await session.release();
  });

  test("an output that float16 can't hold is infinite", async () => {
    const feeds = { a: new Tensor('float16', [60000]), b: new Tensor('float16', [60000]) };
    expect((await run(pair('Add', 'float16'), feeds, backend)).data).toEqual(Uint16Array.of(0x7c00));
  });

  const LIMITS = {
    int8: [-128n, 127n],
    int16: [-(2n ** 15n), 2n ** 15n - 1n],
    int32: [-(2n ** 31n), 2n ** 31n - 1n],
    int64: [-(2n ** 63n), 2n ** 63n - 1n],
    uint8: [0n, 2n ** 8n - 1n],
    uint16: [0n, 2n ** 16n - 1n],
    uint32: [0n, 2n ** 32n - 1n],
    uint64: [0n, 2n ** 64n - 1n],
  } as const;
  const INTEGERS = Object.keys(LIMITS) as readonly (keyof typeof LIMITS)[];
  const listOf = (tensor: Tensor) => Array.from(tensor.data as BigInt64Array, BigInt);
  const make = (type: DataType, values: readonly bigint[]) =>
    new Tensor(type as 'int64', type.endsWith('64') ? values : (values.map(Number) as never), [
      values.length,
    ]);

  test.each(INTEGERS)('%s wraps around, and is compared by its own order', async (type) => {
    const [least, most] = LIMITS[type];
    const feeds = { a: make(type, [most, least, most]), b: make(type, [1n, most, most]) };
    expect(listOf(await run(pair('Add', type), feeds, backend))).toEqual([
      least,
      least + most,
      least === 0n ? most - 1n : -2n,
    ]);
    expect(listOf(await run(pair('Max', type), feeds, backend))).toEqual([most, most, most]);
    expect(listOf(await run(pair('Greater', type, 'bool'), feeds, backend))).toEqual([1n, 0n, 0n]);
    expect(listOf(await run(pair('Div', type), feeds, backend))).toEqual([most, least === 0n ? 0n : -1n, 1n]);
  });

  test.each(INTEGERS)('numbers out of range saturate when they are cast to %s', async (type) => {
    const [least, most] = LIMITS[type];
    const graph = new GraphBuilder();
    graph.input('x', ['n']);
    graph.nodes('Cast', ['x'], { to: ELEMENT_TYPE[type] }, { outputs: ['y'] });
    graph.output('y', ['n'], type);
    const x = new Tensor('float32', [-1e20, 1e20, 3.9, Number.NaN]);
    expect(listOf(await run(graph, { x }, backend))).toEqual([least, most, 3n, 0n]);
  });

  test.each(INTEGERS)('the smallest of %s is found', async (type) => {
    const [least, most] = LIMITS[type];
    const graph = new GraphBuilder();
    graph.input('x', ['n'], type);
    graph.nodes('ArgMin', ['x'], { keepdims: 0 }, { outputs: ['y'] });
    graph.output('y', [], 'int64');
    expect(listOf(await run(graph, { x: make(type, [most, 1n, least, 2n]) }, backend))).toEqual([2n]);
  });
});

test('Float16Array, where there is one, is taken as bits', () => {
  // Node has it from version 24 on.
  class Float16Array extends Uint16Array {
    override get [Symbol.toStringTag](): 'Uint16Array' {
      return 'Float16Array' as 'Uint16Array';
    }
  }
  const bits = new Float16Array([0x3c00, 0xc000]);
  const tensor = new Tensor('float16', bits);
  expect(Array.from(toFloat32(tensor).data)).toEqual([1, -2]);
  expect(tensor.data.buffer).toBe(bits.buffer);
  expect(Array.from(widenFloat16(narrowToFloat16([0.1])))).toEqual([0.0999755859375]);
});
