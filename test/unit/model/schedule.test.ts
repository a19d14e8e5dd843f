import * as fc from 'fast-check';
import { buildProgram } from 'lib/model/compile.js';
import { NONE, type Program } from 'lib/model/program/program.js';
import { BlockMode } from 'lib/skip/compiled-policy.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { expectAgreement, runProgram } from '../../helpers/run-program.js';

const SHAPE = [1, 4, 6, 6];
const ONE = [1, 1, 1, 1];

/** Expects what the contract of Program promises of steps and blocks. */
function expectWellFormed(program: Program): void {
  const { steps, blocks, values } = program;
  const made = new Set(program.inputs.map(({ value }) => value));
  for (const [index, step] of steps.entries()) {
    for (const id of step.inputs) {
      if (id !== NONE && !values[id]!.data && !made.has(id))
        throw new Error(`step ${index} reads ${id} too early`);
    }
    for (const id of step.outputs) made.add(id);
    if (step.op === 'branch' || step.op === 'jump') expect(step.attrs.target).toBeGreaterThan(index);
  }
  for (const { value } of program.outputs) expect(made).toContain(value);
  let before = 0;
  for (const { gateFirst, first, end, output, input, skippable, gate } of blocks) {
    expect(gateFirst).toBeGreaterThanOrEqual(before);
    expect(first).toBeGreaterThanOrEqual(gateFirst);
    expect(end).toBeGreaterThan(first);
    expect(steps[end - 1]!.outputs).toContain(output);
    before = end;
    expectContained(program, first, end, output);
    if (gate) expectContained(program, gateFirst, first, gate.score);
    if (skippable) expect(values[output]!.shape).toEqual(values[input]!.shape);
    const inside = steps.slice(gateFirst, end);
    expect(inside.some(({ op }) => op === 'branch' || op === 'jump')).toBe(false);
  }
}

/** Nothing that steps [from, to) make is read outside of them, except `result`. */
function expectContained({ steps, outputs }: Program, from: number, to: number, result: number): void {
  const made = new Set(steps.slice(from, to).flatMap((step) => step.outputs.filter((id) => id !== result)));
  for (const [index, step] of steps.entries()) {
    if (index >= from && index < to) continue;
    if (step.inputs.some((id) => made.has(id))) throw new Error(`step ${index} reads what is made inside`);
  }
  for (const { value } of outputs) expect(made).not.toContain(value);
}

function gatedSum(b: IrBuilder, x: number, g: number): number {
  return b.act(b.binary('add', x, b.binary('mul', g, b.body(x))));
}

test('the steps of a gate come right before its block, wherever the file had them', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const body = b.body(x);
  const other = b.act(b.conv(x, 4), 'tanh');
  const y = b.act(b.binary('add', x, b.binary('mul', b.gate(x), body)));
  const { program } = expectAgreement(b.build(b.binary('mul', y, other)));
  expectWellFormed(program);
  const [block] = program.blocks;
  const ops = program.steps.map(({ op }) => op);
  expect(ops.slice(block!.gateFirst, block!.first)).toEqual(['globalPool', 'gemm', 'gemm']);
  expect(ops.slice(block!.first, block!.end)).toEqual(['conv', 'conv']);
});

test('what several gates share runs always', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const flags = b.cast(b.compare('gt', b.logits(x, 2), b.constant(0)));
  const gate = (i: number) => b.reshape(b.slice(flags, [0, i], [1, 1]), ONE);
  const { program } = expectAgreement(b.build(gatedSum(b, gatedSum(b, x, gate(0)), gate(1))));
  expectWellFormed(program);
  const pool = program.steps.findIndex(({ op }) => op === 'globalPool');
  expect(pool).toBeLessThan(program.blocks[0]!.gateFirst);
  expect(program.blocks.map(({ gateFirst, first }) => first - gateFirst)).toEqual([2, 2]);
});

test('what a gate shares with the body runs always', () => {
  const b = new IrBuilder();
  const x = b.input(SHAPE);
  const activated = b.act(b.norm(x));
  const body = b.conv(b.act(b.norm(b.conv(activated, 4))), 4);
  const y = b.binary('add', x, b.binary('mul', b.gate(activated), body));
  const { program } = expectAgreement(b.build(y));
  expectWellFormed(program);
  expect(program.steps[0]!.op).toBe('affine');
  expect(program.blocks[0]!.gateFirst).toBe(1);
});

test('a score that is an output is always computed', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const score = b.logits(x);
  const g = b.reshape(b.cast(b.compare('gt', score, b.constant(0))), ONE);
  const { program } = expectAgreement(b.build(gatedSum(b, x, g), score));
  expectWellFormed(program);
  expect(program.blocks[0]!.gateFirst).toBe(program.blocks[0]!.first);
});

test('of a gate inside a gated block, the outer one remains', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const inner = gatedSum(b, b.act(b.conv(x, 4)), b.gate(x, 0.1));
  const y = b.act(b.binary('add', x, b.binary('mul', b.gate(x), b.conv(inner, 4))));
  const { program, ran } = expectAgreement(b.build(y), 10);
  expectWellFormed(program);
  expect(program.blocks).toHaveLength(1);
  expect(program.steps.slice(program.blocks[0]!.first).map(({ op }) => op)).toContain('where');
  expect(new Set(ran.flat())).toEqual(new Set([0, 1]));
});

test('a skipped block costs none of its steps and changes nothing else', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const program = buildProgram(b.build(b.act(b.norm(gatedSum(b, x, b.gate(x))), 'tanh')));
  const without = new IrBuilder();
  const start = without.act(without.input(SHAPE));
  without.gate(start);
  without.body(start);
  const rest = buildProgram(without.build(without.act(without.norm(start), 'tanh')));
  const item = [randomFloats(144, 7)];
  expect(runProgram(program, item, [BlockMode.skip]).output).toEqual(runProgram(rest, item).output);
});

test('conditionals nest and branch', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const flag = (at: number) => b.reshape(b.compare('gt', b.logits(x), b.constant(at)), []);
  const [outer, inner] = [flag(0), flag(0.2)];
  const y = b.branches(
    outer,
    SHAPE,
    (branch) =>
      branch.branches(
        inner,
        SHAPE,
        (deep) => deep.act(deep.conv(x, 4)),
        (deep) => deep.act(deep.conv(x, 4), 'sigmoid'),
      ),
    (branch) => branch.act(x, 'tanh'),
  );
  const { program } = expectAgreement(b.build(b.conv(y, 4)), 10);
  expectWellFormed(program);
  expect(program.steps.filter(({ op }) => op === 'branch')).toHaveLength(2);
  expect(program.blocks).toEqual([]);
});

test('an output that two ports name is written twice', () => {
  const b = new IrBuilder();
  const y = b.act(b.input(SHAPE));
  const { program } = expectAgreement(b.build(y, y));
  expect(new Set(program.outputs.map(({ value }) => value)).size).toBe(2);
});

test('costs', () => {
  const b = new IrBuilder();
  const x = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
  const y = gatedSum(b, x, b.gate(x));
  const { blocks, cost } = buildProgram(b.build(b.gemm(b.globalPool(y), 10)));
  const body = 2 * 36 * 4 * 4 * 9;
  expect(blocks[0]!.cost.multiplyAdds).toBe(body);
  expect(blocks[0]!.cost.layers).toBe(2);
  expect(blocks[0]!.cost.bytes).toBe(4 * (5 * 144 + 2 * (144 + 4)));
  expect(cost.multiplyAdds).toBe(36 * 4 * 27 + body + (4 * 4 + 4) + 40);
  expect(cost.layers).toBe(1 + 2 + 2 + 1);
});

/** One operation of a random network: any mix of blocks, gates and things between them. */
const PIECES: readonly ((b: IrBuilder, x: number, earlier: number) => number)[] = [
  (b, x) => b.act(b.binary('add', x, b.body(x))),
  (b, x) => b.binary('add', b.conv(b.act(b.norm(x)), 4), x),
  (b, x) => gatedSum(b, x, b.gate(x)),
  (b, x, earlier) => gatedSum(b, x, b.gate(earlier, 0.05)),
  (b, x) => b.binary('add', x, b.binary('mul', b.body(x), b.gate(x, -0.05))),
  (b, x) => {
    const g = b.gate(x, 0.02);
    const rest = b.binary('sub', b.constant(1), g);
    return b.binary(
      'add',
      b.binary('mul', g, b.act(b.binary('add', x, b.body(x)))),
      b.binary('mul', rest, x),
    );
  },
  (b, x) => b.where(b.reshape(b.compare('gt', b.logits(x), b.constant(0)), ONE), b.act(b.body(x)), x),
  (b, x) => b.act(b.norm(x), 'tanh'),
  (b, x, earlier) => b.binary('add', x, earlier),
  (b, x) => b.conv(x, 4),
  (b, x) => b.act(x),
  (b, x, earlier) => b.act(b.binary('add', earlier, b.conv(x, 4))),
  (b, x) =>
    b.branches(
      b.reshape(b.compare('gt', b.logits(x), b.constant(0)), []),
      SHAPE,
      (branch) => branch.act(branch.binary('add', x, branch.body(x))),
      (branch) => branch.reshape(x, SHAPE),
    ),
];

test('random networks keep their meaning, gate by gate', () => {
  const choice = fc.record({ piece: fc.nat(PIECES.length - 1), back: fc.nat(3) });
  fc.assert(
    fc.property(fc.array(choice, { minLength: 1, maxLength: 7 }), (choices) => {
      const b = new IrBuilder();
      const stream = [b.act(b.input(SHAPE))];
      for (const { piece, back } of choices) {
        const earlier = stream[Math.max(0, stream.length - 1 - back)]!;
        stream.push(PIECES[piece]!(b, stream[stream.length - 1]!, earlier));
      }
      const { program } = expectAgreement(b.build(stream[stream.length - 1]!), 3);
      expectWellFormed(program);
    }),
    { numRuns: 60, seed: 20 },
  );
});
