import { buildProgram } from '../../../lib/model/compile.js';
import { type Block, NO_ACTIVATION, NONE, type Program, type ValueId } from '../../../lib/model/program.js';
import { BlockMode } from '../../../lib/skip/resolve.js';
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

type Make = (b: IrBuilder, x: ValueId, body: ValueId) => ValueId;

/** A quantised network of a stem, one block, whose sum `make` writes, and a head on floats. */
function network(make: Make, scale = SCALE) {
  const b = new IrBuilder();
  const x = rounded(b, b.act(conv(b, rounded(b, b.input([1, 3, 6, 6])), 4, 1)));
  const inner = rounded(b, b.act(conv(b, x, 4, 2)));
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
      [bytes],
      { mode: 'constant', pads: [0, 0, 1, 1, 0, 0, 1, 1], value: -7 },
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
