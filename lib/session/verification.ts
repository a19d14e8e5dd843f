/** Guarded answers: which items of a run have one, and the full run that replaces it. */
import type { ResolvedPolicy, RunRequest } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { isGuarded, type ResolvedGuard } from '../skip/guards.js';
import { classScoresOf } from '../skip/scores.js';
import { leftEarly } from '../skip/trace.js';
import { allocate, type TensorData } from '../tensor.js';

/**
 * Items whose class scores touch a guarded class, and that skipped a block or took an exit.
 * @param exits thresholds of the policy's exits; `all` when another network verifies: then all such items
 * @throws ResidualSkipError INVALID_POLICY when the program has no class scores
 */
export function guardedItems(
  program: Program,
  request: RunRequest,
  guards: readonly ResolvedGuard[],
  exits: ReadonlyMap<string, number> | 'all',
): number[] {
  const { items, outputs, ran } = request;
  const answer = classScoresOf(program);
  if (!answer) {
    throw new ResidualSkipError(
      'INVALID_POLICY',
      'policy: it guards answers, but the model has no output of class scores, float32 [batch, classes]',
    );
  }
  const scores = outputs[answer.index] as Float32Array;
  const [classes, blocks] = [scores.length / items, program.blocks.length];
  return Array.from({ length: items }, (_, item) => item).filter(
    (item) =>
      (exits === 'all' ||
        ran.subarray(item * blocks, (item + 1) * blocks).includes(0) ||
        leftEarly(program, { outputs, exits }, item)) &&
      isGuarded(scores.subarray(item * classes, (item + 1) * classes), answer.meaning, guards),
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
 * @param program without heads: its outputs are the first ones of `original`
 */
export function verificationOf(
  program: Program,
  original: RunRequest,
  chosen: readonly number[],
  policy: ResolvedPolicy,
): { request: RunRequest; apply(): void } {
  const { items } = original;
  const cells = chosen.length * program.blocks.length;
  const sizeOf = (i: number) => original.outputs[i]!.length / (program.outputs[i]!.batched ? items : 1);
  const request: RunRequest = {
    items: chosen.length,
    inputs: program.inputs.map(({ batched }, i) => {
      const data = original.inputs[i]!;
      return batched ? gather(data, items, chosen) : data;
    }),
    outputs: program.outputs.map(({ value, batched }, i) =>
      allocate(program.values[value]!.dtype, sizeOf(i) * (batched ? chosen.length : 1)),
    ),
    policy,
    ran: new Uint8Array(cells),
    scores: new Float32Array(cells),
  };
  const apply = () => {
    program.outputs.forEach(({ batched }, i) => {
      const [from, to] = [request.outputs[i] as Float32Array, original.outputs[i] as Float32Array];
      const size = sizeOf(i);
      if (!batched) to.set(from);
      else
        for (const [k, item] of chosen.entries())
          to.set(from.subarray(k * size, (k + 1) * size), item * size);
    });
  };
  return { request, apply };
}
