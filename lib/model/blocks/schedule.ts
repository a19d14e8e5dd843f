import { ResidualSkipError } from '../../errors.js';
import type { Region, Select, WorkIf, WorkOp, WorkStep } from '../optimise/region.js';
import { costOf } from '../program/cost.js';
import { type Block, type Gate, NONE, type Step, type ValueId } from '../program/program.js';
import { gatherBody, type ResidualBlock } from './residual.js';

export interface Schedule {
  readonly steps: Step[];
  readonly blocks: Block[];
}

/**
 * Lays a region out as one list of steps. Operations keep their order, except that all members of a block move to the
 * position where the block's output is produced, the gate's steps first. This is always possible: outside a block,
 * only its output is needed.
 */
export function schedule(region: Region, blocks: readonly ResidualBlock[]): Schedule {
  const steps: Step[] = [];
  const scheduled: Block[] = [];
  const gathered = blocks.map((block) => ({ block, ...gatherBody(region, block.output, block.input) }));
  const members = new Set<WorkOp>(gathered.flatMap(({ body, gate }) => [...body, ...gate]));
  const byLast = new Map(gathered.map((entry) => [region.producer(entry.block.output)!, entry]));
  for (const op of region.ops) {
    const entry = byLast.get(op);
    if (!entry) {
      if (!members.has(op)) emit(region, op, steps);
      continue;
    }
    const gateFirst = steps.length;
    for (const member of entry.gate) emit(region, member, steps);
    const first = steps.length;
    for (const member of entry.body) if (member.op !== 'select') emit(region, member, steps);
    const { name, shortcut, skippable, input, output, skipActivation, skipTable } = entry.block;
    const gate = op.op === 'select' ? gateOf(op) : undefined;
    if (op.op === 'select') renameOutput(steps, op.inputs[1]!, output);
    const end = steps.length;
    const cost = costOf(region.values, steps.slice(first, end));
    const block = {
      name,
      shortcut,
      skippable,
      gateFirst,
      first,
      end,
      input,
      output,
      skipActivation,
      ...(skipTable !== undefined && { skipTable }),
      cost,
    };
    scheduled.push(gate ? { ...block, gate } : block);
  }
  return { steps, blocks: scheduled };
}

function gateOf(select: Select): Gate {
  const { form, compare, threshold } = select.attrs;
  return { form, score: select.inputs[0]!, compare, threshold };
}

/** Makes the body's last step write the block's output directly. */
function renameOutput(steps: Step[], body: ValueId, output: ValueId): void {
  const last = steps[steps.length - 1]!;
  if (last.outputs[0] !== body)
    throw new ResidualSkipError('INTERNAL', 'block: it does not end with its body');
  steps[steps.length - 1] = { ...last, outputs: [output] } as Step;
}

function emit(region: Region, op: WorkOp, steps: Step[]): void {
  if (op.op === 'select') throw new ResidualSkipError('INTERNAL', `gate ${op.node}: it belongs to no block`);
  if (op.op === 'if') emitIf(region, op, steps);
  else steps.push(plainStep(op));
}

function plainStep({ op, inputs, outputs, attrs }: WorkStep): Step {
  return { op, inputs, outputs, attrs } as Step;
}

/** branch else; then...; copies; jump end; else: ...; copies; end: */
function emitIf(region: Region, conditional: WorkIf, steps: Step[]): void {
  const branchAt = steps.length;
  steps.push({ op: 'branch', inputs: conditional.inputs, outputs: [], attrs: { target: NONE } });
  emitBranch(region, conditional.whenTrue, conditional.outputs, steps);
  const jumpAt = steps.length;
  steps.push({ op: 'jump', inputs: [], outputs: [], attrs: { target: NONE } });
  steps[branchAt] = {
    op: 'branch',
    inputs: conditional.inputs,
    outputs: [],
    attrs: { target: steps.length },
  };
  emitBranch(region, conditional.whenFalse, conditional.outputs, steps);
  steps[jumpAt] = { op: 'jump', inputs: [], outputs: [], attrs: { target: steps.length } };
}

function emitBranch(region: Region, branch: Region, outputs: readonly ValueId[], steps: Step[]): void {
  for (const op of branch.ops) emit(region, op, steps);
  branch.outputs.forEach((id, i) => {
    steps.push({ op: 'reshape', inputs: [id], outputs: [outputs[i]!], attrs: {} });
  });
}
