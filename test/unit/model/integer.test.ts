import { buildProgram } from 'lib/model/compile.js';
import { Growth } from 'lib/model/program/grow.js';
import {
  type Block,
  NO_ACTIVATION,
  NONE,
  type Program,
  type Step,
  type ValueId,
} from 'lib/model/program/program.js';
import { BlockMode } from 'lib/skip/compiled-policy.js';
import { featureSteps } from 'lib/skip/head-features.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { denseProgram, runProgram } from '../../helpers/run-program.js';

const SCALE = 1 / 64;
const SPLIT = 0.05;

/** Floats that have gone through bytes of int8. */
function rounded(b: IrBuilder, x: ValueId, scale = SCALE): ValueId {
  const factor = b.constant(Float32Array.of(scale), [1]);
  const bytes = b.step('quantize', [x, factor, NONE], { axis: 0 }, b.shape(x), 'int8');
  return b.step('dequantize', [bytes, factor, NONE], { axis: 0 }, b.shape(x));
}

/** A convolution with int8 weights, one scale for each channel. */
function conv(b: IrBuilder, x: ValueId, channels: number, seed: number): ValueId {
  const [n, depth, h, w] = b.shape(x) as [number, number, number, number];
  const weights = Int8Array.from(randomFloats(channels * depth * 9, seed), (v) => v * 127);
  const bytes = b.constant(weights, [channels, depth, 3, 3]);
  const scales = b.constant(
    Float32Array.from({ length: channels }, (_, c) => 0.002 + 0.0002 * c),
    [channels],
  );
  const weight = b.step('dequantize', [bytes, scales, NONE], { axis: 0 }, [channels, depth, 3, 3]);
  const window = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1] };
  return b.step('conv', [x, weight, NONE, NONE], { ...window, group: 1, act: NO_ACTIVATION }, [
    n,
    channels,
    h,
    w,
  ]);
}

/** A layer on the last axis, with int8 weights, one scale for each output. */
function linear(b: IrBuilder, x: ValueId, outputs: number, seed: number): ValueId {
  const shape = b.shape(x);
  const depth = shape.at(-1)!;
  const bytes = b.constant(
    Int8Array.from(randomFloats(depth * outputs, seed), (v) => v * 127),
    [depth, outputs],
  );
  const scales = b.constant(new Float32Array(outputs).fill(0.003), [outputs]);
  const weight = b.step('dequantize', [bytes, scales, NONE], { axis: 1 }, [depth, outputs]);
  return b.step('matmul', [x, weight], {}, [...shape.slice(0, -1), outputs]);
}

type Make = (b: IrBuilder, x: ValueId, body: ValueId) => ValueId;

/**
 * A quantised network of a stem, one block, whose sum `make` writes, and a head on floats.
 * @param apart the block's convolution and its sum read bytes of their own
 */
function network(make: Make, scale = SCALE, apart = false) {
  const b = new IrBuilder();
  const stem = b.act(conv(b, rounded(b, b.input([1, 3, 6, 6])), 4, 1));
  const x = rounded(b, stem);
  const inner = rounded(b, b.act(conv(b, apart ? rounded(b, stem) : x, 4, 2)));
  const y = rounded(b, make(b, x, rounded(b, conv(b, inner, 4, 3))), scale);
  return b.build(b.gemm(b.globalPool(y), 3));
}

const sum: Make = (b, x, body) => b.act(b.binary('add', x, body));
const gated: Make = (b, x, body) => b.act(b.binary('add', x, b.binary('mul', b.gate(x, SPLIT), body)));
const chosen: Make = (b, x, body) => {
  const flag = b.compare('gt', b.logits(x), b.constant(SPLIT));
  return b.step('where', [flag, b.act(b.binary('add', x, body)), x], {}, b.shape(x));
};

const item = (seed: number) => [
  randomFloats(3 * 36, 100 + seed).map((v) => v * (1 + (seed % 3)) + 0.1 * (seed - 4)),
];
const opsOf = ({ steps }: Program) => steps.map(({ op }) => op);

/** Expects the same results as of the operations one by one; returns the decisions of the block. */
function decisions(make: Make, scale?: number): { program: Program; ran: Set<number | undefined> } {
  const ir = network(make, scale);
  const [program, dense] = [buildProgram(ir), denseProgram(ir)];
  const ran = Array.from({ length: 9 }, (_, seed) => {
    const [actual, expected] = [runProgram(program, item(seed)), runProgram(dense, item(seed)).output];
    const largest = Math.max(...expected.map(Math.abs));
    actual.output.forEach((v, i) => {
      expect(Math.abs(v - expected[i]!)).toBeLessThanOrEqual(0.02 * largest);
    });
    return actual.ran[0];
  });
  return { program, ran: new Set(ran) };
}

test('layers between bytes, and the sum of a block, are integer steps', () => {
  const { program } = decisions(sum);
  const ops = opsOf(program);
  expect(ops.filter((op) => op === 'qconv')).toHaveLength(3);
  expect(ops.filter((op) => op === 'qbinary')).toHaveLength(1);
  expect(ops.filter((op) => op === 'quantize')).toHaveLength(1);
  expect(ops).not.toContain('conv');
  expect(ops).not.toContain('dequantize');
});

test('equal bytes of several readers are the same', () => {
  const [apart, shared] = [network(sum, SCALE, true), network(sum)].map(buildProgram) as [Program, Program];
  expect(apart.blocks).toMatchObject([{ shortcut: 'identity', skippable: true }]);
  expect(opsOf(apart)).toEqual(opsOf(shared));
  for (const seed of [1, 2]) {
    expect(runProgram(apart, item(seed)).output).toEqual(runProgram(shared, item(seed)).output);
  }
});

test('a stream that keeps its scale goes around a block as it is', () => {
  const [block] = decisions(sum).program.blocks as [Block];
  expect(block).toMatchObject({ shortcut: 'identity', skippable: true });
  expect(block.skipTable).toBeUndefined();
});

test('a stream that changes its scale goes around a block through a table', () => {
  const { program } = decisions(sum, 2 * SCALE);
  const [block] = program.blocks as [Block];
  expect(block.skippable).toBe(true);
  const table = program.values[block.skipTable!]!.data as Uint8Array;
  // Half as large, of two equally near bytes the even one; negative sums are none. The zero point is 128.
  expect([...table.slice(128, 136)]).toEqual([0, 0, 1, 2, 2, 2, 3, 4].map((byte) => 128 + byte));
  expect([...table.slice(0, 128)].every((byte) => byte === 128)).toBe(true);
});

describe.each([
  ['multiply', gated],
  ['where', chosen],
] as const)('a gate of the form %s', (form, make) => {
  test.each([SCALE, 2 * SCALE])('is kept, and decides for each item (scale %s)', (scale) => {
    const { program, ran } = decisions(make, scale);
    const [block] = program.blocks as [Block];
    expect(block).toMatchObject({ skippable: true, shortcut: 'identity', gate: { form } });
    expect(block.skipTable === undefined).toBe(scale === SCALE);
    expect(opsOf(program)).not.toContain('conv');
    expect([...ran].sort()).toEqual([0, 1]);
  });
});

test('a skipped block leaves the stream to what is behind it', () => {
  const program = buildProgram(network(sum, 2 * SCALE));
  const without = denseProgram(network((b, x) => b.act(x), 2 * SCALE));
  for (const seed of [1, 2, 3]) {
    const skipped = runProgram(program, item(seed), [BlockMode.skip]);
    expect(skipped.ran).toEqual([0]);
    const expected = runProgram(without, item(seed)).output;
    skipped.output.forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i]!, 4);
    });
  }
});

describe('int8 activations', () => {
  /** Bytes of int8 with a zero point, moved, seen as an output, and read by a layer. */
  function moved() {
    const b = new IrBuilder();
    const factor = b.constant(Float32Array.of(SCALE), [1]);
    const zero = b.constant(Int8Array.of(-5), [1]);
    const x = b.input([1, 3, 6, 6]);
    const bytes = b.step('quantize', [x, factor, zero], { axis: 0 }, [1, 3, 6, 6], 'int8');
    const padded = b.step(
      'pad',
      [bytes, b.constant(Int8Array.of(-7))],
      { mode: 'constant', pads: [0, 0, 1, 1, 0, 0, 1, 1] },
      [1, 3, 8, 8],
      'int8',
    );
    const window = { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] };
    const pool = { kind: 'max', countIncludePad: false, columnMajorIndices: false } as const;
    const most = b.step('pool', [padded], { ...window, ...pool }, [1, 3, 4, 4], 'int8');
    const y = b.step('dequantize', [most, factor, zero], { axis: 0 }, [1, 3, 4, 4]);
    return b.build(conv(b, y, 4, 9), most);
  }

  test('are uint8 inside the program, and int8 where the caller sees them', () => {
    const ir = moved();
    const program = buildProgram(ir);
    const types = program.steps.map(({ op, outputs }) => `${op} ${program.values[outputs[0]!]!.dtype}`);
    expect(types).toEqual(
      expect.arrayContaining(['quantize uint8', 'pad uint8', 'pool uint8', 'lookup int8', 'qconv float32']),
    );
    expect(types).toHaveLength(5);
    const [actual, expected] = [program, denseProgram(ir)].map((each) => runProgram(each, item(3)));
    expect(expected!.others[0]).toContain(-7);
    expect(actual!.others[0]).toEqual(expected!.others[0]);
    for (const [i, v] of actual!.output.entries()) expect(v).toBeCloseTo(expected!.output[i]!, 4);
  });
});

const WINDOW = { kernel: [3, 3], strides: [3, 3], pads: [0, 0, 0, 0], dilations: [1, 1] };

test('pools of bytes whose results are floats sum and compare bytes', () => {
  const b = new IrBuilder();
  const x = rounded(b, b.act(conv(b, rounded(b, b.input([1, 3, 6, 6])), 4, 1)));
  const rest = { countIncludePad: false, columnMajorIndices: false };
  const means = b.step('pool', [x], { ...WINDOW, ...rest, kind: 'avg' }, [1, 4, 2, 2]);
  const most = b.step('globalPool', [x], { kind: 'max' }, [1, 4]);
  const flat = b.step('reshape', [means], {}, [1, 16]);
  const ir = b.build(b.gemm(b.step('concat', [flat, most], { axis: 1 }, [1, 20]), 3));
  const program = buildProgram(ir);
  const pools = program.steps.filter(({ op }) => op === 'qpool' || op === 'pool');
  expect(pools.map(({ inputs }) => program.values[inputs[0]!]!.dtype)).toEqual(['uint8', 'uint8']);
  const real = program.steps.filter(({ op }) => op === 'dequantize').map(({ outputs }) => outputs[0]!);
  expect(real.map((id) => program.values[id]!.shape)).toEqual([[1, 4]]);
  for (const seed of [1, 2, 3]) {
    const [actual, expected] = [program, denseProgram(ir)].map((one) => runProgram(one, item(seed)).output);
    actual!.forEach((v, i) => {
      expect(v).toBeCloseTo(expected![i]!, 5);
    });
  }
});

test('an average over windows of unequal size stays one of floats', () => {
  const b = new IrBuilder();
  const x = rounded(b, b.act(conv(b, rounded(b, b.input([1, 3, 6, 6])), 4, 1)));
  const attrs = { ...WINDOW, pads: [1, 1, 1, 1], countIncludePad: false, columnMajorIndices: false };
  const means = b.step('pool', [x], { ...attrs, kind: 'avg' }, [1, 4, 2, 2]);
  const program = buildProgram(b.build(b.gemm(b.step('reshape', [means], {}, [1, 16]), 3)));
  expect(opsOf(program)).toContain('pool');
  expect(opsOf(program)).not.toContain('qpool');
});

test.each(['mean', 'grid', 'pyramid'] as const)('a head reads %s of the bytes of a stream', (features) => {
  const program = buildProgram(network(sum));
  const [block] = program.blocks as [Block];
  const growth = new Growth(program);
  const bytes = featureSteps(growth, 'bytes', features, block.output);
  const { shape, term } = growth.valueOf(block.output);
  const real = growth.value('real', 'float32', shape);
  const scale = growth.constant('scale', Float32Array.of(term!.factor), [1]);
  const floats = featureSteps(growth, 'floats', features, real);
  const zero = growth.value('zero', 'uint8', [1], Uint8Array.of(term!.zero));
  const back = { op: 'dequantize', inputs: [block.output, scale, zero], outputs: [real], attrs: { axis: 0 } };
  growth.insert(block.end, [...bytes.steps, back as Step, ...floats.steps]);
  growth.output('bytes', bytes.result);
  growth.output('floats', floats.result);
  // Nothing but maxima, one for each channel, becomes numbers before it is pooled.
  for (const { op, inputs } of bytes.steps) {
    if (op === 'dequantize') expect(growth.valueOf(inputs[0]!).shape).toEqual([1, 4]);
  }
  for (const seed of [1, 2, 3]) {
    const [actual, expected] = runProgram(growth.build(), item(seed)).others as [Float32Array, Float32Array];
    expect(Math.max(...expected)).toBeGreaterThan(0.1);
    actual.forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i]!, 5);
    });
  }
});

test('layers on maps whose channels are last, between transposes, multiply bytes', () => {
  const b = new IrBuilder();
  const x = b.act(conv(b, rounded(b, b.input([1, 3, 6, 6])), 4, 1));
  const last = b.step('transpose', [x], { perm: [0, 2, 3, 1] }, [1, 6, 6, 4]);
  const hidden = linear(b, rounded(b, last), 16, 2);
  const bias = b.constant(randomFloats(16, 3), [16]);
  const sum = b.step('binary', [hidden, bias], { kind: 'add', act: NO_ACTIVATION }, [1, 6, 6, 16]);
  const y = linear(b, rounded(b, b.act(sum)), 4, 4);
  const first = b.step('transpose', [y], { perm: [0, 3, 1, 2] }, [1, 4, 6, 6]);
  const ir = b.build(b.gemm(b.globalPool(first), 3));
  const program = buildProgram(ir);
  expect(opsOf(program).filter((op) => op === 'qmatmul')).toHaveLength(2);
  expect(opsOf(program)).not.toContain('dequantize');
  const [actual, expected] = [program, denseProgram(ir)].map(
    (each) => runProgram(each, item(1)).output as Float32Array,
  );
  actual!.forEach((v, i) => {
    expect(v).toBeCloseTo(expected![i]!, 4);
  });
});

test.each([64, 300])('a product of bytes by transposed bytes over %i numbers is one step', (depth) => {
  const b = new IrBuilder();
  const x = b.input([1, 5, depth]);
  const left = rounded(b, x, 1 / 100);
  const right = b.step('transpose', [left], { perm: [0, 2, 1] }, [1, depth, 5]);
  const product = b.step('matmul', [left, rounded(b, right)], {}, [1, 5, 5]);
  const factor = b.constant(Float32Array.of(0.3), [1]);
  const y = b.step('quantize', [product, factor, NONE], { axis: 0 }, [1, 5, 5], 'int8');
  const program = buildProgram(b.build(b.step('dequantize', [y, factor, NONE], { axis: 0 }, [1, 5, 5])));
  expect(opsOf(program)).toContain('qmatmul');
  expect(opsOf(program)).not.toContain('transpose');
  const values = randomFloats(5 * depth, 8);
  const bytes = (v: number, scale: number) => Math.max(-128, Math.min(127, Math.round(v / scale)));
  const expected = Array.from({ length: 25 }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < depth; k++) {
      const [first, second] = [Math.floor(at / 5), at % 5].map((row) =>
        bytes(values[row * depth + k]!, 0.01),
      );
      sum += first! * bytes(second! * 0.01, SCALE);
    }
    return bytes((sum * 0.01 * SCALE) / 0.3, 1) * 0.3;
  });
  const { output } = runProgram(program, [values]);
  for (const [i, v] of expected.entries()) expect(output[i]).toBeCloseTo(v, 4);
});

/** A constant of bytes, as floats. */
function dequantised(b: IrBuilder, bytes: Int8Array, shape: readonly number[], scale: number): ValueId {
  const inputs = [b.constant(bytes, shape), b.constant(Float32Array.of(scale), [1]), NONE];
  return b.step('dequantize', inputs, { axis: 0 }, shape);
}

test('GELU that is quantised after each step becomes one table', () => {
  const b = new IrBuilder();
  const x = rounded(b, b.input([1, 64]));
  const erf = rounded(b, b.act(x, 'erf'), 1 / 127);
  const bell = rounded(b, b.binary('add', erf, dequantised(b, Int8Array.of(127), [], 1 / 127)), 2 / 127);
  const product = rounded(b, b.binary('mul', x, bell));
  const ir = b.build(rounded(b, b.binary('mul', product, dequantised(b, Int8Array.of(127), [], 0.5 / 127))));
  const program = buildProgram(ir);
  expect(opsOf(program)).toEqual(['quantize', 'lookup', 'dequantize']);
  const values = [randomFloats(64, 3)];
  expect(runProgram(program, values).output).toEqual(runProgram(denseProgram(ir), values).output);
});

test.each(['uint8', 'int8'] as const)(
  'a table of %s behind a table is one, and a constant in bytes becomes the same floats',
  (dtype) => {
    const b = new IrBuilder();
    const [scale, zero] = dtype === 'uint8' ? [1 / 50, Uint8Array.of(131)] : [1 / 50, Int8Array.of(-9)];
    const inputs = [b.constant(Float32Array.of(scale), [1]), b.constant(zero, [1])];
    const through = (x: ValueId) => {
      const bytes = b.step('quantize', [x, ...inputs], { axis: 0 }, b.shape(x), dtype);
      return b.step('dequantize', [bytes, ...inputs], { axis: 0 }, b.shape(x));
    };
    const swish = (x: ValueId) => through(b.binary('mul', x, through(b.act(x, 'sigmoid'))));
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    const bytes = b.constant(dtype === 'uint8' ? all : new Int8Array(all.buffer), [1, 256]);
    const constant = b.step('dequantize', [bytes, ...inputs], { axis: 0 }, [1, 256]);
    const ir = b.build(b.binary('div', swish(through(b.input([1, 256]))), b.act(constant, 'exp')));
    const program = buildProgram(ir);
    expect(opsOf(program).filter((op) => op === 'lookup')).toHaveLength(1);
    expect(opsOf(program).filter((op) => op === 'dequantize')).toHaveLength(1);
    const values = [randomFloats(256, 3).map((v) => 2.5 * v)];
    expect(runProgram(program, values).output).toEqual(runProgram(denseProgram(ir), values).output);
  },
);

test('a table that something else reads, too, stays', () => {
  const b = new IrBuilder();
  const x = rounded(b, b.act(rounded(b, b.input([1, 64])), 'erf'));
  const ir = b.build(b.binary('sub', x, rounded(b, b.act(x, 'exp'), 1 / 32)));
  const program = buildProgram(ir);
  expect(opsOf(program).filter((op) => op === 'lookup')).toHaveLength(2);
  const values = [randomFloats(64, 3)];
  expect(runProgram(program, values).output).toEqual(runProgram(denseProgram(ir), values).output);
});

test('the scale of a layer normalisation that is quantised again is one of its constants', () => {
  const b = new IrBuilder();
  const x = rounded(b, b.input([1, 2, 4]));
  const norm = b.step('layerNorm', [x, NONE, NONE], { axis: 2, epsilon: 1e-5 }, [1, 2, 4]);
  const gamma = rounded(b, dequantised(b, Int8Array.of(30, 60, 90, 120), [4], 1 / 60), 1 / 30);
  const ir = b.build(rounded(b, b.binary('mul', norm, gamma)));
  const program = buildProgram(ir);
  const [layer] = program.steps.filter(({ op }) => op === 'layerNorm');
  expect(program.values[layer!.inputs[1]!]!.data).toEqual(
    Float32Array.of(15, 30, 45, 60).map((v) => v * Math.fround(1 / 30)),
  );
  const values = [randomFloats(8, 3)];
  expect(runProgram(program, values).output).toEqual(runProgram(denseProgram(ir), values).output);
});
