import type { Block, Program, Step } from './program.js';

/**
 * `program` with more steps in it: `insertions.get(i)` goes in front of step i, behind any block that ends there and in
 * front of any that begins there, its gate's steps included or not as `Block.gateFirst` and `Block.first` say. Jumps to
 * step i go to what was put in front of it. Targets of inserted jumps are left as they are.
 */
export function insertSteps(program: Program, insertions: ReadonlyMap<number, readonly Step[]>): Program {
  const steps: Step[] = [];
  /** Where old step i begins, with what was put before it, and where it stands itself. */
  const begins: number[] = [];
  const stands: number[] = [];
  const old: number[] = [];
  for (let i = 0; i <= program.steps.length; i++) {
    begins.push(steps.length);
    steps.push(...(insertions.get(i) ?? []));
    stands.push(steps.length);
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
      gateFirst: stands[block.gateFirst]!,
      first: stands[block.first]!,
      end: begins[block.end]!,
    }),
  );
  return { ...program, steps, blocks };
}
