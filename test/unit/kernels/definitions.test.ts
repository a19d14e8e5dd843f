/** What is a matter of definition: NaN, integer overflow, empty tensors, working in place, errors. */
import { ResidualSkipError } from 'lib/errors.js';
import { type KernelStep, type KernelTensor, runStep } from 'lib/kernels/index.js';
import { NO_ACTIVATION } from 'lib/model/program/program.js';
import { compute, float } from '../../helpers/evaluate.js';
import { randomTensor } from '../../helpers/random.js';

const relu: KernelStep = { op: 'unary', attrs: { act: { kind: 'relu', alpha: 0, beta: 0 } } };

test('relu keeps NaN of either sign and drops every other negative', () => {
  const bits = new Int32Array([0x7fc00000, 0xffc00000, 0xff800000, 0x80000001, 0x7f800000, 0x00000001]);
  const x: KernelTensor = { dtype: 'float32', shape: [6], data: new Float32Array(bits.buffer) };
  const [y] = compute(relu, [x], [x]);
  expect([...y!]).toEqual([Number.NaN, Number.NaN, 0, 0, Number.POSITIVE_INFINITY, 2 ** -149]);
});

test.each([
  ['int32', Int32Array, [-(2 ** 31), 2 ** 31 - 1, 7, -7], [-1, 1, 0, 2]],
  ['uint8', Uint8Array, [255, 200, 7, 9], [1, 100, 0, 2]],
] as const)('%s arithmetic wraps around and never traps', (dtype, Type, a, b) => {
  const [x, y] = [a, b].map((values): KernelTensor => ({ dtype, shape: [4], data: Type.from(values) }));
  const run = (kind: 'add' | 'mul' | 'div') => [
    ...compute({ op: 'binary', attrs: { kind, act: NO_ACTIVATION } }, [x, y], [x!])[0]!,
  ];
  expect({ add: run('add'), mul: run('mul'), div: run('div') }).toEqual(
    dtype === 'int32'
      ? {
          add: [2 ** 31 - 1, -(2 ** 31), 7, -5],
          mul: [-(2 ** 31), 2 ** 31 - 1, 0, -14],
          div: [-(2 ** 31), 2 ** 31 - 1, 0, -3],
        }
      : { add: [0, 44, 7, 11], mul: [255, 32, 0, 18], div: [255, 2, 0, 4] },
  );
});

test('int64 arithmetic is exact where doubles are not', () => {
  const wide = (...values: bigint[]): KernelTensor => ({
    dtype: 'int64',
    shape: [values.length],
    data: BigInt64Array.from(values),
  });
  const [a, b] = [wide(2n ** 53n, 2n ** 63n - 1n), wide(1n, 1n)];
  const [sum] = compute({ op: 'binary', attrs: { kind: 'add', act: NO_ACTIVATION } }, [a, b], [a]);
  expect([...sum!]).toEqual([2n ** 53n + 1n, -(2n ** 63n)]);
});

describe('a tensor without elements', () => {
  const act = NO_ACTIVATION;
  const window = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] };
  const nothing = float([0, 3], []);
  test.each<[string, KernelStep, KernelTensor[], number[], number[]]>([
    [
      'conv without items',
      { op: 'conv', attrs: { ...window, group: 1, act } },
      [float([0, 1, 2, 2], []), float([1, 1, 1, 1], [2])],
      [0, 1, 2, 2],
      [],
    ],
    [
      'gemm without depth',
      { op: 'gemm', attrs: { transB: false, act } },
      [float([2, 0], []), float([0, 2], [])],
      [2, 2],
      [0, 0, 0, 0],
    ],
    [
      'matmul without a batch',
      { op: 'matmul', attrs: {} },
      [float([0, 1, 2], []), float([2, 2], [1, 2, 3, 4])],
      [0, 1, 2],
      [],
    ],
    ['unary', relu, [nothing], [0, 3], []],
    ['binary', { op: 'binary', attrs: { kind: 'add', act } }, [nothing, float([3], [1, 2, 3])], [0, 3], []],
    [
      'concat',
      { op: 'concat', attrs: { axis: 0 } },
      [nothing, float([1, 3], [1, 2, 3]), nothing],
      [1, 3],
      [1, 2, 3],
    ],
    ['transpose', { op: 'transpose', attrs: { perm: [1, 0] } }, [nothing], [3, 0], []],
    ['slice', { op: 'slice', attrs: { starts: [0, 0], steps: [1, 1] } }, [float([1, 2], [1, 2])], [1, 0], []],
    [
      'pad',
      { op: 'pad', attrs: { pads: [1, 0, 0, 0], mode: 'constant' } },
      [nothing, float([], [9])],
      [1, 3],
      [9, 9, 9],
    ],
    ['softmax', { op: 'softmax', attrs: { axis: 0, log: false } }, [nothing], [0, 3], []],
    ['reduceMean of no lines', { op: 'reduceMean', attrs: { axes: [1] } }, [nothing], [0], []],
    ['globalPool', { op: 'globalPool', attrs: { kind: 'avg' } }, [float([1, 0, 2, 2], [])], [1, 0, 1, 1], []],
  ])('%s', (_, step, inputs, shape, expected) => {
    const [y] = compute(step, inputs, [{ dtype: 'float32', shape }]);
    expect([...y!]).toEqual(expected);
  });
});

describe('in place', () => {
  const x = () => randomTensor('float32', [1, 6, 5, 5], 3);
  const scale = randomTensor('float32', [6], 4);
  const relu6 = { kind: 'clip', alpha: 0, beta: 6 } as const;
  const same = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1] };
  const weight = randomTensor('float32', [6, 6, 3, 3], 5);
  test.each<[string, KernelStep, (stream: KernelTensor) => (KernelTensor | undefined)[]]>([
    [
      'conv onto its residual',
      { op: 'conv', attrs: { ...same, group: 1, act: relu6 } },
      (r) => [randomTensor('float32', [1, 6, 5, 5], 9), weight, undefined, r],
    ],
    ['affine', { op: 'affine', attrs: { act: relu6 } }, (s) => [s, scale, scale]],
    ['unary', { op: 'unary', attrs: { act: relu6 } }, (s) => [s]],
    ['softmax', { op: 'softmax', attrs: { axis: 1, log: true } }, (s) => [s]],
    [
      'binary, left',
      { op: 'binary', attrs: { kind: 'sub', act: relu6 } },
      (s) => [s, randomTensor('float32', [6, 1, 1], 8)],
    ],
    [
      'binary, right',
      { op: 'binary', attrs: { kind: 'sub', act: relu6 } },
      (s) => [randomTensor('float32', [6, 1, 1], 8), s],
    ],
  ])('%s gives what it gives elsewhere', (_, step, inputs) => {
    const stream = x();
    const [expected] = compute(step, inputs(x()), [stream]);
    runStep(step, inputs(stream), [stream]);
    expect(stream.data).toEqual(expected);
  });

  test('gemm onto its residual', () => {
    const step: KernelStep = { op: 'gemm', attrs: { transB: true, act: NO_ACTIVATION } };
    const stream = randomTensor('float32', [3, 5], 1);
    const inputs = (r: KernelTensor) => [
      randomTensor('float32', [3, 7], 2),
      randomTensor('float32', [5, 7], 3),
      undefined,
      r,
    ];
    const [expected] = compute(step, inputs(randomTensor('float32', [3, 5], 1)), [stream]);
    runStep(step, inputs(stream), [stream]);
    expect(stream.data).toEqual(expected);
  });
});

test('constant weights may serve layers of different shapes', () => {
  const data = randomTensor('float32', [48], 6).data;
  const w = (shape: number[], constant: boolean): KernelTensor => ({
    dtype: 'float32',
    shape,
    data,
    constant,
  });
  const x = randomTensor('float32', [1, 12, 1, 1], 7);
  const a = randomTensor('float32', [2, 12], 8);
  const window = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] };
  const layers: [KernelStep, KernelTensor, number[], number[]][] = [
    [{ op: 'conv', attrs: { ...window, group: 1, act: NO_ACTIVATION } }, x, [4, 12, 1, 1], [1, 4, 1, 1]],
    [{ op: 'conv', attrs: { ...window, group: 3, act: NO_ACTIVATION } }, x, [12, 4, 1, 1], [1, 12, 1, 1]],
    [{ op: 'gemm', attrs: { transB: true, act: NO_ACTIVATION } }, a, [4, 12], [2, 4]],
    [{ op: 'gemm', attrs: { transB: false, act: NO_ACTIVATION } }, a, [12, 4], [2, 4]],
  ];
  for (const [step, input, weights, shape] of layers) {
    const fresh = compute(step, [input, w(weights, false)], [{ dtype: 'float32', shape }]);
    for (let time = 0; time < 2; time++) {
      expect(compute(step, [input, w(weights, true)], [{ dtype: 'float32', shape }])).toEqual(fresh);
    }
  }
});

describe('errors', () => {
  const gather = (index: bigint) => () =>
    compute(
      { op: 'gather', attrs: { axis: 0 } },
      [float([3], [1, 2, 3]), { dtype: 'int64', shape: [1], data: BigInt64Array.of(index) }],
      [{ dtype: 'float32', shape: [1] }],
    );

  test.each([3n, -4n, 2n ** 62n])('an index of %s is outside an axis of 3', (index) => {
    expect(gather(index)).toThrow(ResidualSkipError);
    expect(gather(index)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(gather(index)).toThrow(`index ${Number(index)} is outside [-3, 2]`);
  });

  test('a step without its input is a defect', () => {
    const call = () => compute(relu, [undefined], [{ dtype: 'float32', shape: [1] }]);
    expect(call).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});
