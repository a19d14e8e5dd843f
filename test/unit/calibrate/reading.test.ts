import { exitPoints } from 'lib/calibrate/fit/exit-points.js';
import { readingOf } from 'lib/calibrate/fit/reading.js';
import { buildProgram } from 'lib/model/compile.js';
import { Growth } from 'lib/model/program/grow.js';
import type { Program } from 'lib/model/program/program.js';
import type { RowFeatures as Features } from 'lib/skip/head.js';
import { featureSteps } from 'lib/skip/head-features.js';
import { expectClose } from '../../helpers/compare.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { runProgram } from '../../helpers/run-program.js';

type Shape = readonly number[];
const WIDTH = 4;

/** Blocks of layers on the last axis of an input of that shape, then what `end` makes of the stream. */
function network(shape: Shape, end: (b: IrBuilder, x: number) => number, masked = false): Program {
  const b = new IrBuilder();
  let x = b.input(shape);
  if (masked) b.input([1, shape[1]!], 'int64');
  const layer = (y: number) => b.step('matmul', [y, b.random([WIDTH, WIDTH])], {}, shape);
  for (let i = 0; i < 4; i++) x = b.binary('add', x, layer(b.act(layer(x))));
  const ir = b.build(b.gemm(end(b, b.binary('mul', x, b.random([WIDTH]))), 3));
  const inputs = ir.inputs.map((port, i) => (i === 1 ? { ...port, name: 'attention_mask' } : port));
  return buildProgram({ ...ir, inputs });
}

const TOKENS = [1, 5, WIDTH];
const MAP = [1, 3, 2, WIDTH];
const firstToken = (b: IrBuilder, x: number) => b.reshape(b.slice(x, [0, 0, 0], [1, 1, WIDTH]), [1, WIDTH]);
const gathered = (b: IrBuilder, x: number) =>
  b.step('gather', [x, b.constant(BigInt64Array.of(0n))], { axis: 1 }, [1, WIDTH]);
const lastToken = (b: IrBuilder, x: number) => b.reshape(b.slice(x, [0, 4, 0], [1, 1, WIDTH]), [1, WIDTH]);
const mean = (b: IrBuilder, x: number, ...axes: number[]) => b.step('reduceMean', [x], { axes }, [1, WIDTH]);
const reduced = (b: IrBuilder, x: number, kind: 'sum' | 'max') =>
  b.step('reduce', [x], { kind, axes: [1] }, [1, WIDTH]);
const pooled = (b: IrBuilder, x: number) =>
  b.globalPool(b.step('transpose', [x], { perm: [0, 3, 1, 2] }, [1, WIDTH, 3, 2]));

test.each<[string, Shape, (b: IrBuilder, x: number) => number, Features | undefined]>([
  ['a class token by Slice', TOKENS, firstToken, 'tokens'],
  ['a class token by Gather', TOKENS, gathered, 'tokens'],
  ['the mean of the tokens', TOKENS, (b, x) => mean(b, x, 1), 'rows'],
  ['the sum of the tokens', TOKENS, (b, x) => reduced(b, x, 'sum'), 'rows'],
  ['the largest of the tokens', TOKENS, (b, x) => reduced(b, x, 'max'), undefined],
  ['another token', TOKENS, lastToken, undefined],
  ['a map with channels last, by its mean', MAP, (b, x) => mean(b, x, 1, 2), 'rows'],
  ['a map with channels last, transposed and pooled', MAP, pooled, 'rows'],
])('a network that reads %s has exits that read it', (_, shape, end, features) => {
  const program = network(shape, end);
  expect(program.blocks).toHaveLength(4);
  expect(readingOf(program)).toEqual(
    features && { rank: shape.length, axis: shape.length - 1, first: features === 'tokens' },
  );
  const points = exitPoints(program, 1000);
  expect(points.length > 0).toBe(features !== undefined);
  const width = features === 'tokens' ? 2 * WIDTH : WIDTH;
  for (const place of points) expect([place.features, place.width]).toEqual([features, width]);
});

test('a last layer of 8 bits is read as one in float', () => {
  const program = network(TOKENS, (b, x) => mean(b, x, 1));
  const inBytes = program.steps.map((step) => (step.op === 'gemm' ? { ...step, op: 'qmatmul' } : step));
  expect(inBytes.at(-1)!.op).toBe('qmatmul');
  expect(readingOf({ ...program, steps: inBytes as Program['steps'] })).toEqual({
    rank: 3,
    axis: 2,
    first: false,
  });
});

/** The features of the first block's output, and that output. */
function readFeatures(program: Program, features: Features, inputs: Parameters<typeof runProgram>[1]) {
  const growth = new Growth({ ...program, outputs: [] });
  const block = program.blocks[0]!;
  const { steps, result } = featureSteps(growth, 'test', features, block.output);
  const shown = growth.value('shown', 'float32', growth.valueOf(block.output).shape);
  growth.insert(block.end, [
    ...steps,
    { op: 'reshape', inputs: [block.output], outputs: [shown], attrs: {} },
  ]);
  growth.output('features', result);
  growth.output('shown', shown);
  const { output, others } = runProgram(growth.build(), inputs);
  return { read: [...output], stream: others[0]! };
}

const column = (stream: Float32Array, rows: readonly number[], c: number) =>
  rows.reduce((sum, row) => sum + stream[row * WIDTH + c]!, 0) / rows.length;

test.each<[string, Features, readonly number[] | undefined, readonly (readonly number[])[]]>([
  ['all tokens', 'rows', undefined, [[0, 1, 2, 3, 4]]],
  ['the tokens that the mask marks', 'rows', [1, 1, 1, 0, 0], [[0, 1, 2]]],
  ['the class token and all tokens', 'tokens', undefined, [[0], [0, 1, 2, 3, 4]]],
  ['the class token and those that the mask marks', 'tokens', [1, 1, 1, 0, 0], [[0], [0, 1, 2]]],
])('a head reads %s', (_, features, mask, parts) => {
  const program = network(TOKENS, firstToken, mask !== undefined);
  const item = randomFloats(5 * WIDTH, 3);
  const { read, stream } = readFeatures(program, features, [
    item,
    ...(mask ? [BigInt64Array.from(mask, BigInt)] : []),
  ]);
  const expected = parts.flatMap((rows) =>
    Array.from({ length: WIDTH }, (_unused, c) => column(stream, rows, c)),
  );
  expectClose(Float32Array.from(read), Float32Array.from(expected), { relative: 1e-5, absolute: 1e-6 });
});
