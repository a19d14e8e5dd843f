import { buildProgram } from 'lib/model/compile.js';
import { NO_ACTIVATION, NONE, type Program, type StepNamed } from 'lib/model/program/program.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { expectAgreement } from '../../helpers/run-program.js';

const IMAGE = [1, 4, 6, 6];
const ops = (program: Program) => program.steps.map(({ op }) => op);

function image(): { b: IrBuilder; x: number } {
  const b = new IrBuilder();
  return { b, x: b.input(IMAGE) };
}

describe('layers take what follows them', () => {
  test('a BatchNorm and its relu become part of the convolution', () => {
    const { b, x } = image();
    const { program } = expectAgreement(b.build(b.act(b.norm(b.conv(x, 8)))));
    expect(ops(program)).toEqual(['conv']);
    expect((program.steps[0] as StepNamed<'conv'>).attrs.act.kind).toBe('relu');
  });

  test('a BatchNorm becomes part of a fully connected layer, in both layouts', () => {
    for (const transB of [true, false]) {
      const b = new IrBuilder();
      const x = b.input([1, 5]);
      const weight = b.random(transB ? [3, 5] : [5, 3]);
      const y = b.step('gemm', [x, weight, NONE, NONE], { transB, act: NO_ACTIVATION }, [1, 3]);
      expect(ops(expectAgreement(b.build(b.norm(y))).program)).toEqual(['gemm']);
    }
  });

  test.each(['add', 'sub', 'mul', 'div'] as const)('%s of a constant for each channel', (kind) => {
    const { b, x } = image();
    const y = b.binary(kind, b.conv(x, 8), b.random([8, 1, 1], 0.3, 1));
    expect(ops(expectAgreement(b.build(y)).program)).toEqual(['conv']);
  });

  test.each(['add', 'sub', 'mul'] as const)('%s with the constant first', (kind) => {
    const { b, x } = image();
    const y = b.binary(kind, b.random([1, 8, 1, 1], 0.3, 1), b.conv(x, 8));
    expect(ops(expectAgreement(b.build(y)).program)).toEqual(['conv']);
  });

  test('a constant divided by a convolution is not linear', () => {
    const { b, x } = image();
    const y = b.binary('div', b.constant(1), b.act(b.conv(x, 8), 'sigmoid'));
    expect(ops(expectAgreement(b.build(y)).program)).toEqual(['conv', 'binary']);
  });

  test('a constant that varies over the image stays', () => {
    const { b, x } = image();
    const y = b.binary('add', b.conv(x, 8), b.random([8, 6, 6]));
    expect(ops(expectAgreement(b.build(y)).program)).not.toContain('affine');
  });

  test('a convolution that something else reads keeps its weights', () => {
    const { b, x } = image();
    const y = b.conv(x, 4);
    const { program } = expectAgreement(b.build(b.binary('mul', b.norm(y), y)));
    expect(ops(program)).toEqual(['conv', 'affine', 'binary']);
  });

  test('a convolution that is an output keeps its weights', () => {
    const { b, x } = image();
    const y = b.conv(x, 4);
    expect(ops(expectAgreement(b.build(y, b.norm(y))).program)).toEqual(['conv', 'affine']);
  });

  test('nothing is folded behind an activation', () => {
    const { b, x } = image();
    const { program } = expectAgreement(b.build(b.norm(b.act(b.conv(x, 4)))));
    expect(ops(program)).toEqual(['conv', 'affine']);
  });

  test('a product with a constant matrix becomes a layer with bias and activation', () => {
    const b = new IrBuilder();
    const x = b.input([1, 5]);
    const y = b.step('matmul', [x, b.random([5, 3])], {}, [1, 3]);
    const { program } = expectAgreement(b.build(b.act(b.binary('add', y, b.random([3])))));
    expect(ops(program)).toEqual(['gemm']);
  });

  test('the last layer takes the sum and its activation', () => {
    const { b, x } = image();
    const y = b.act(b.binary('add', b.conv(b.act(b.conv(x, 4)), 4), x));
    const { program } = expectAgreement(b.build(y));
    expect(ops(program)).toEqual(['conv', 'conv']);
    expect(program.steps[1]!.inputs[3]).toBe(program.inputs[0]!.value);
  });
});

test('two programs of one model share folded weights', () => {
  const { b, x } = image();
  const ir = b.build(b.norm(b.conv(x, 8)));
  const [first, second] = [buildProgram(ir), buildProgram(ir)];
  const weights = (program: Program) => program.values[program.steps[0]!.inputs[1]!]!.data;
  expect(weights(first)).toBeDefined();
  expect(weights(first)).toBe(weights(second));
});

test('one weight under two BatchNorms gives two weights', () => {
  const { b, x } = image();
  const shared = b.random([4, 4, 1, 1]);
  const attrs = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], group: 1, act: NO_ACTIVATION };
  const layer = (from: number) => b.norm(b.step('conv', [from, shared, NONE, NONE], attrs, IMAGE));
  const { program } = expectAgreement(b.build(layer(b.act(layer(x)))));
  expect(program.steps[0]!.inputs[1]).not.toBe(program.steps[1]!.inputs[1]);
});

describe('pointwise functions', () => {
  const cases: [string, string, (b: IrBuilder, x: number) => number][] = [
    ['x*sigmoid(x)', 'silu', (b, x) => b.binary('mul', x, b.act(x, 'sigmoid'))],
    ['sigmoid(x)*x', 'silu', (b, x) => b.binary('mul', b.act(x, 'sigmoid'), x)],
    ['x*hardSigmoid(x)', 'hardSwish', (b, x) => b.binary('mul', x, b.act(x, 'hardSigmoid', 1 / 6, 0.5))],
    [
      'x*(relu6(x+3)/6)',
      'hardSwish',
      (b, x) => b.binary('mul', x, b.binary('div', six(b, x), b.constant(6))),
    ],
    ['x*relu6(x+3)/6', 'hardSwish', (b, x) => b.binary('div', b.binary('mul', x, six(b, x)), b.constant(6))],
    [
      'x*relu6(x+3)*(1/6)',
      'hardSwish',
      (b, x) => b.binary('mul', b.binary('mul', six(b, x), x), b.constant(1 / 6)),
    ],
    ['relu6(x+3)/6', 'hardSigmoid', (b, x) => b.binary('div', six(b, x), b.constant(6))],
    ['clip to [0, inf)', 'relu', (b, x) => b.act(x, 'clip', 0, Number.POSITIVE_INFINITY)],
    ['relu of relu', 'relu', (b, x) => b.act(b.act(x))],
    ['relu of relu6', 'clip', (b, x) => b.act(b.act(x, 'clip', 0, 6))],
  ];
  const six = (b: IrBuilder, x: number) => b.act(b.binary('add', x, b.constant(3)), 'clip', 0, 6);

  test.each(cases)('%s is %s', (_, kind, make) => {
    const { b, x } = image();
    const { program } = expectAgreement(b.build(make(b, b.act(x, 'leakyRelu', 0.9))));
    expect(program.steps).toHaveLength(2);
    expect((program.steps[1] as StepNamed<'unary'>).attrs.act.kind).toBe(kind);
  });

  test('the sigmoid of something else is no silu', () => {
    const { b, x } = image();
    const y = b.act(x, 'tanh');
    const { program } = expectAgreement(b.build(b.binary('mul', y, b.act(x, 'sigmoid'))));
    expect(ops(program)).toEqual(['unary', 'unary', 'binary']);
  });

  test('a sigmoid that something else reads stays', () => {
    const { b, x } = image();
    const s = b.act(x, 'sigmoid');
    const { program } = expectAgreement(b.build(b.binary('add', b.binary('mul', x, s), s)));
    expect(ops(program)).toContain('unary');
  });
});

describe('clutter', () => {
  test('copies, reshapes of reshapes and casts to the same type vanish', () => {
    const { b, x } = image();
    let y = b.reshape(b.reshape(x, [1, 144]), IMAGE);
    y = b.cast(b.step('transpose', [y], { perm: [0, 1, 2, 3] }, IMAGE));
    y = b.step('pad', [y, NONE], { pads: Array(8).fill(0), mode: 'constant' }, IMAGE);
    y = b.step('concat', [b.slice(y, [0, 0, 0, 0], IMAGE)], { axis: 1 }, IMAGE);
    expect(ops(expectAgreement(b.build(b.act(y))).program)).toEqual(['unary']);
  });

  test('reversing an axis is no copy', () => {
    const { b, x } = image();
    const y = b.slice(x, [0, 3, 0, 0], IMAGE, [1, -1, 1, 1]);
    expect(ops(expectAgreement(b.build(b.act(y))).program)).toEqual(['slice', 'unary']);
  });

  test('what nobody needs is gone, its constants too', () => {
    const { b, x } = image();
    b.act(b.conv(x, 64));
    const { program } = expectAgreement(b.build(b.act(x)));
    expect(ops(program)).toEqual(['unary']);
    expect(program.values).toHaveLength(2);
  });

  test('an output that is an input is copied', () => {
    const { b, x } = image();
    expect(ops(expectAgreement(b.build(b.reshape(x, IMAGE))).program)).toEqual(['reshape']);
  });

  test('the mean over the image and the pool of its size are global pools', () => {
    for (const op of ['reduceMean', 'pool'] as const) {
      const { b, x } = image();
      const window = { strides: [6, 6], pads: [0, 0, 0, 0], dilations: [1, 1], kernel: [6, 6] };
      const y =
        op === 'pool'
          ? b.step(
              op,
              [x],
              { ...window, kind: 'avg', countIncludePad: false, columnMajorIndices: false },
              [1, 4, 1, 1],
            )
          : b.step(op, [x], { axes: [2, 3] }, [1, 4]);
      expect(ops(expectAgreement(b.build(y)).program)).toEqual(['globalPool']);
    }
  });

  test('a global pool flattens by itself, but not to another shape', () => {
    for (const [shape, count] of [
      [[1, 4], 1],
      [[4, 1], 2],
    ] as const) {
      const { b, x } = image();
      const y = b.step('globalPool', [x], { kind: 'max' }, [1, 4, 1, 1]);
      expect(expectAgreement(b.build(b.reshape(y, shape))).program.steps).toHaveLength(count);
    }
  });

  test('a normalisation written as product and sum is one affine', () => {
    const { b, x } = image();
    const y = b.binary('add', b.binary('mul', x, b.random([4, 1, 1])), b.random([4, 1, 1]));
    expect(ops(expectAgreement(b.build(b.act(y))).program)).toEqual(['affine']);
  });
});
