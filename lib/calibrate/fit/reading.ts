/** How a network reads the output of its last block: what heads read of earlier blocks should fit it. */
import type { Program, Step, Value, ValueId } from '../../model/program/program.js';
import { sameShape } from '../../numeric/shapes.js';

export interface Reading {
  /** Number of axes of the last block's output. */
  readonly rank: number;
  /** The axis whose elements the classifier weighs: the channels. */
  readonly axis: number;
  /** Whether it reads one row alone, a class token; otherwise all are pooled. */
  readonly first: boolean;
}

/** A value computed from the block's output: the axis of the output that each of its axes is; -1 for a lost one. */
interface Seen {
  readonly axes: readonly number[];
  readonly first: boolean;
}

/**
 * Follows the output of the last block to the first layer behind it, or else to the network's output; undefined where something else
 * lies between.
 */
export function readingOf({ values, steps, blocks, outputs }: Program): Reading | undefined {
  const block = blocks.at(-1);
  if (!block) return undefined;
  const rank = values[block.output]!.shape.length;
  const seen = new Map<ValueId, Seen>([
    [block.output, { axes: values[block.output]!.shape.map((_, axis) => axis), first: false }],
  ]);
  for (const step of steps.slice(block.end)) {
    const read = step.inputs.filter((id) => seen.has(id));
    const input = read.find((id) => sameShape(values[id]!.shape, values[step.outputs[0]!]!.shape)) ?? read[0];
    if (input === undefined) continue;
    const from = seen.get(input)!;
    if (step.op === 'gemm' || step.op === 'matmul' || step.op === 'qmatmul') {
      const axis = from.axes.at(-1)!;
      return axis > 0 ? { rank, axis, first: from.first } : undefined;
    }
    const output = step.outputs[0]!;
    const next = behind(step, from, values[input]!, values[output]!, values);
    if (next) seen.set(output, next);
  }
  const last = outputs.map(({ value }) => seen.get(value)).find((found) => found !== undefined);
  const axis = last?.axes.at(-1) ?? 0;
  return last && axis > 0 ? { rank, axis, first: last.first } : undefined;
}

function behind(step: Step, from: Seen, x: Value, y: Value, values: readonly Value[]): Seen | undefined {
  const { axes, first } = from;
  switch (step.op) {
    case 'transpose':
      return { axes: step.attrs.perm.map((axis) => axes[axis]!), first };
    case 'reshape':
      return reshaped(from, x, y);
    case 'globalPool':
    case 'qglobalPool':
      return { axes: y.shape.map((_, axis) => (axis < 2 ? axes[axis]! : -1)), first };
    case 'reduce':
    case 'reduceMean': {
      // Of the masked tokens, exporters take the sum.
      if (step.op === 'reduce' && step.attrs.kind !== 'sum') return undefined;
      const { axes: gone } = step.attrs;
      const kept = y.shape.length === x.shape.length;
      const left = axes.map((axis, i) => (gone.includes(i) ? -1 : axis));
      return { axes: kept ? left : left.filter((_, i) => !gone.includes(i)), first };
    }
    case 'slice': {
      const axis = x.shape.findIndex((length, i) => length !== y.shape[i]);
      if (axis < 0) return from;
      const picks = axis === 1 && y.shape[axis] === 1 && step.attrs.starts[axis] === 0;
      return picks ? { axes: axes.with(axis, -1), first: true } : undefined;
    }
    case 'gather': {
      const { data } = values[step.inputs[1]!]!;
      const { axis } = step.attrs;
      if (axis !== 1 || data?.length !== 1 || Number(data[0]) !== 0) return undefined;
      const kept = y.shape.length === x.shape.length;
      return { axes: kept ? axes.with(axis, -1) : axes.toSpliced(axis, 1), first: true };
    }
    default:
      return sameShape(x.shape, y.shape) ? from : undefined;
  }
}

/** Axes of length 1 may appear or vanish; all others stay in order. */
function reshaped({ axes, first }: Seen, x: Value, y: Value): Seen | undefined {
  const long = axes.filter((_, i) => x.shape[i]! > 1);
  const lengths = (shape: readonly number[]) => shape.filter((length) => length > 1);
  if (!sameShape(lengths(x.shape), lengths(y.shape))) return undefined;
  let next = 0;
  return { axes: y.shape.map((length) => (length > 1 ? long[next++]! : -1)), first };
}
