/** Eight bits hold neither NaN nor infinity: what a network in 8 bits makes of them looks like an answer. */
import type { OpName, Program, ValueId } from '../model/program/program.js';

/** A NaN in their operands is in their results, too. */
const KEEP_NAN: readonly OpName[] = [
  ...(['conv', 'gemm', 'matmul', 'affine', 'unary', 'binary', 'pool', 'globalPool'] as const),
  ...(['reduceMean', 'layerNorm', 'resample', 'transpose', 'pad', 'concat', 'reshape', 'expand'] as const),
];

export interface Rounded {
  /**
   * The values of inputs that 8 bits round. An input counts as long as a NaN in it would reach the rounding: a network may replace it
   * before.
   */
  readonly inputs: readonly ValueId[];
  /** Those that are computed from what the inputs were rounded to. */
  readonly values: ReadonlySet<ValueId>;
}

export function roundedIn({ inputs, steps, values }: Program): Rounded {
  /** The input whose NaN a value would have. */
  const source = new Map<ValueId, ValueId>();
  for (const { value } of inputs) if (values[value]!.dtype === 'float32') source.set(value, value);
  const found = new Set<ValueId>();
  const rounded = new Set<ValueId>();
  for (const { op, inputs: operands, outputs } of steps) {
    const rounds = op === 'quantize' || op === 'dynamicQuantize';
    const sources = operands.flatMap((id) => source.get(id) ?? []);
    if (rounds) for (const from of sources) found.add(from);
    const isRounded = (rounds && sources.length > 0) || operands.some((id) => rounded.has(id));
    const from = KEEP_NAN.includes(op) ? sources.at(-1) : undefined;
    for (const output of outputs) {
      if (isRounded) rounded.add(output);
      if (from !== undefined) source.set(output, from);
    }
  }
  return { inputs: [...found], values: rounded };
}
