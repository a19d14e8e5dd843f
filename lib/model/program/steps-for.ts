import type { Step, ValueId } from './program.js';

/** Those of `steps` that the given values depend on, in order. */
export function stepsFor(steps: readonly Step[], values: Iterable<ValueId>): Step[] {
  const needed = new Set(values);
  return steps
    .toReversed()
    .filter((step) => {
      const used = step.outputs.some((id) => needed.has(id));
      if (used) for (const id of step.inputs) needed.add(id);
      return used;
    })
    .reverse();
}
