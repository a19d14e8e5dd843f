import type { Program, UnusableGate } from '../program/program.js';
import type { ModelFacts } from '../read/model.js';

/**
 * The gates that can't be used by a program of `model`: those that skip nothing, and, if its batch can have any length but runs as
 * one item, those that need a batch of one.
 */
export function gatesOutOfUse(
  { batching, batchingReason, inputs }: ModelFacts,
  program: Program,
): UnusableGate[] {
  const unusable = program.unusableGates ?? [];
  if (batching === 'item') return [...unusable];
  const why = `the batch runs as one item, because ${batchingReason}`;
  const anyBatch = inputs.some(({ shape }) => typeof shape[0] === 'string');
  const alone = anyBatch ? program.blocks.filter(({ gate }) => gate) : [];
  return [
    ...unusable.map(({ node, reason }) => ({ node, reason: `${reason}; ${why}` })),
    ...alone.map(({ name }) => ({ node: name, reason: `it skips only in a batch of one; ${why}` })),
  ];
}
