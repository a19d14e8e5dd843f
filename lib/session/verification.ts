/** Guarded answers: which items of a run have one, and the full run that replaces it. */
import type { RunRequest } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { type CompiledPolicy, decisionsIn } from '../skip/compiled-policy.js';
import { isGuarded } from '../skip/guards.js';
import { allocate, type TensorData } from '../tensor/tensor.js';

/**
 * Items whose class scores touch a guarded class, and that skipped a block or took an exit.
 * @param all when another network verifies: then all such items
 * @throws ResidualSkipError INVALID_POLICY when the program has no class scores
 */
export function guardedItems(
  { program, parts, classScores: answer }: CompiledPolicy,
  request: RunRequest,
  all: boolean,
): number[] {
  const { items, outputs, outcomes } = request;
  if (!answer) {
    throw new ResidualSkipError(
      'INVALID_POLICY',
      'policy: it guards answers, but the model has no output of class scores, float32 [batch, classes]',
    );
  }
  const scores = outputs[answer.index] as Float32Array;
  const [decisions, blocks] = [decisionsIn(program), program.blocks.length];
  const [, ...classes] = program.values[program.outputs[answer.index]!.value]!.shape;
  const width = sizeOf(classes);
  // A batch that runs as one item has a row of scores for each of what it holds.
  const rows = scores.length / items / width;
  const touches = (row: number) =>
    isGuarded(scores.subarray(row * width, (row + 1) * width), answer.meaning, parts.guards);
  const skipped = (item: number) => {
    const row = outcomes.subarray(item * decisions, (item + 1) * decisions);
    // Behind the last block an exit skips no block, and yet the answer isn't the network's.
    return row.subarray(0, blocks).includes(0) || row.subarray(blocks).includes(1);
  };
  return Array.from({ length: items }, (_, item) => item).filter(
    (item) =>
      (all || skipped(item)) && Array.from({ length: rows }, (_, row) => item * rows + row).some(touches),
  );
}

/** Copies of the slices of the `chosen` items in an array of `items`, one after another. */
function gather(data: TensorData, items: number, chosen: readonly number[]): TensorData {
  const size = data.length / items;
  const part = new (data.constructor as new (length: number) => TensorData)(size * chosen.length);
  chosen.forEach((item, i) => {
    (part as Float32Array).set((data as Float32Array).subarray(item * size, (item + 1) * size), i * size);
  });
  return part;
}

/**
 * The request that runs the `chosen` items of `original` with `policy`, and a function that puts its answers in their
 * place.
 */
export function verificationOf(
  policy: CompiledPolicy,
  original: RunRequest,
  chosen: readonly number[],
): { request: RunRequest; apply(): void } {
  const { items } = original;
  const { program } = policy;
  const cells = chosen.length * decisionsIn(program);
  const sizeOfOutput = (i: number) => original.outputs[i]!.length / (program.outputs[i]!.batched ? items : 1);
  const request: RunRequest = {
    items: chosen.length,
    inputs: program.inputs.map(({ batched }, i) => {
      const data = original.inputs[i]!;
      return batched ? gather(data, items, chosen) : data;
    }),
    outputs: program.outputs.map(({ value, batched }, i) =>
      allocate(program.values[value]!.dtype, sizeOfOutput(i) * (batched ? chosen.length : 1)),
    ),
    policy,
    outcomes: new Uint8Array(cells),
    scores: new Float32Array(cells),
  };
  const apply = () => {
    program.outputs.forEach(({ batched }, i) => {
      const [from, to] = [request.outputs[i] as Float32Array, original.outputs[i] as Float32Array];
      const size = sizeOfOutput(i);
      if (!batched) to.set(from);
      else
        for (const [k, item] of chosen.entries())
          to.set(from.subarray(k * size, (k + 1) * size), item * size);
    });
  };
  return { request, apply };
}
