import type { Block, Program, Step } from './program.js';

export interface Grown {
  readonly program: Program;
  /** For each old step, and for the end of the program: where what was inserted before it begins. */
  readonly begins: readonly number[];
}

/**
 * `program` with more steps: `insertions.get(i)` goes before step i. It stays outside the blocks that end or begin
 * there, and outside the part of a block that begins at i (its gate at `gateFirst`, its body at `first`). Jumps to
 * step i go to what was inserted before it. Targets of inserted jumps don't change.
 */
export function insertSteps(program: Program, insertions: ReadonlyMap<number, readonly Step[]>): Grown {
  const steps: Step[] = [];
  const begins: number[] = [];
  /** Where each old step is now. */
  const moved: number[] = [];
  const old: number[] = [];
  for (let i = 0; i <= program.steps.length; i++) {
    begins.push(steps.length);
    steps.push(...(insertions.get(i) ?? []));
    moved.push(steps.length);
    const step = program.steps[i];
    if (!step) continue;
    old.push(steps.length);
    steps.push(step);
  }
  for (const at of old) {
    const step = steps[at]!;
    if (step.op === 'branch' || step.op === 'jump') {
      steps[at] = { ...step, attrs: { target: begins[step.attrs.target]! } };
    }
  }
  const blocks = program.blocks.map(
    (block): Block => ({
      ...block,
      gateFirst: moved[block.gateFirst]!,
      first: moved[block.first]!,
      end: begins[block.end]!,
    }),
  );
  return { program: { ...program, steps, blocks }, begins };
}
