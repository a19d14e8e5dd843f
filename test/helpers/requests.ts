import { BlockMode, decisionsIn, type RunRequest } from 'lib/backends/backend.js';
import type { Program } from 'lib/model/program/program.js';
import { sizeOf } from 'lib/numeric/shapes.js';
import { allocate, type TensorData } from 'lib/tensor/tensor.js';
import { uniform } from './random.js';

/** A random mode for every block, among those that it allows. */
export function randomModes(program: Program, seed: number): Uint8Array {
  const next = uniform(seed);
  return Uint8Array.from(program.blocks, ({ skippable, gate }) => {
    const allowed: number[] = [BlockMode.run];
    if (skippable) allowed.push(BlockMode.skip);
    if (gate) allowed.push(BlockMode.gate, BlockMode.gate, BlockMode.gate);
    return allowed[Math.floor(next() * allowed.length)]!;
  });
}

/** A request with buffers for all outputs; gates have the model's thresholds. Every input has `items` slices. */
export function makeRequest(
  program: Program,
  inputs: readonly TensorData[],
  items = 1,
  modes: Uint8Array = Uint8Array.from(program.blocks, ({ gate }) => (gate ? BlockMode.gate : BlockMode.run)),
): RunRequest {
  const { blocks, exits, values } = program;
  return {
    items,
    inputs,
    outputs: program.outputs.map(({ value, batched }) => {
      const { dtype, shape } = values[value]!;
      return allocate(dtype, sizeOf(shape) * (batched ? items : 1));
    }),
    policy: {
      modes: Uint8Array.from([...modes, ...exits.map(() => BlockMode.gate)]),
      thresholds: Float32Array.from([
        ...blocks.map(({ gate }) => gate?.threshold ?? Number.NaN),
        ...exits.map(({ threshold }) => threshold),
      ]),
    },
    outcomes: new Uint8Array(items * decisionsIn(program)),
    scores: new Float32Array(items * decisionsIn(program)),
  };
}
