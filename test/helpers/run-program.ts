import { ReferenceBackend } from 'lib/backends/reference.js';
import { schedule } from 'lib/model/blocks/schedule.js';
import { buildProgram } from 'lib/model/compile.js';
import { Region } from 'lib/model/optimise/region.js';
import type { Ir } from 'lib/model/program/ir.js';
import type { Program } from 'lib/model/program/program.js';
import { BlockMode, decisionsFor, decisionsIn } from 'lib/skip/compiled-policy.js';
import type { TensorData } from 'lib/tensor/tensor.js';
import { randomFloats } from './random.js';

export interface RunResult {
  /** The first output. */
  readonly output: Float32Array;
  /** The other outputs. */
  readonly others: readonly Float32Array[];
  readonly ran: number[];
  readonly scores: number[];
}

/** Runs one item on the reference backend; gates decide as in the model unless `modes` overrides them. */
export function runProgram(
  program: Program,
  inputs: readonly TensorData[],
  modes: readonly number[] = modelModes(program),
): RunResult {
  const { blocks, values } = program;
  const output = new Float32Array(values[program.outputs[0]!.value]!.shape.reduce((a, b) => a * b, 1));
  const others = program.outputs.slice(1).map(({ value }) => {
    return new Float32Array(values[value]!.shape.reduce((a, b) => a * b, 1));
  });
  const outcomes = new Uint8Array(decisionsIn(program));
  const scores = new Float32Array(decisionsIn(program));
  const policy = decisionsFor(program, (_, i) => modes[i]!);
  const compiled = new ReferenceBackend().compileSync(program);
  compiled.runSync({ items: 1, inputs, outputs: [output, ...others], policy, outcomes, scores });
  const ran = [...outcomes.subarray(0, blocks.length)];
  return { output, others, ran, scores: [...scores.subarray(0, blocks.length)] };
}

export function modelModes(program: Program): number[] {
  return program.blocks.map(({ gate }) => (gate ? BlockMode.gate : BlockMode.run));
}

export function runModes(program: Program): number[] {
  return program.blocks.map(() => BlockMode.run);
}

/** The unchanged operations of an Ir, without fusion and gating. */
export function denseProgram(ir: Ir): Program {
  const region = new Region(
    [...ir.values],
    ir.ops,
    ir.outputs.map(({ value }) => value),
  );
  const cost = { multiplyAdds: 0, bytes: 0, layers: 0 };
  const { values, inputs, outputs, batching } = ir;
  return {
    values,
    inputs,
    outputs,
    batching,
    blocks: [],
    exits: [],
    steps: schedule(region, []).steps,
    cost,
  };
}

export interface Agreement {
  readonly program: Program;
  /** For each item, the blocks that ran. */
  readonly ran: readonly (readonly number[])[];
}

/** Expects the program of `ir` to agree with `ir` on a few random items; returns the blocks that ran. */
export function expectAgreement(ir: Ir, items = 6): Agreement {
  const program = buildProgram(ir);
  const dense = denseProgram(ir);
  const shape = ir.values[ir.inputs[0]!.value]!.shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const ran: number[][] = [];
  for (let seed = 0; seed < items; seed++) {
    const offset = (seed - (items - 1) / 2) / items;
    const item = [randomFloats(size, 1000 + seed).map((x) => x * (seed + 1) * 0.5 + offset)];
    const expected = runProgram(dense, item).output;
    const actual = runProgram(program, item);
    const scale = Math.max(...expected.map(Math.abs));
    const errors = Array.from(expected, (x, i) => Math.abs(x - actual.output[i]!));
    expect(actual.output).toHaveLength(expected.length);
    // Written so that NaN is too far off.
    expect(errors.filter((error) => !(error <= 1e-5 * scale))).toEqual([]);
    ran.push(actual.ran);
  }
  return { program, ran };
}
