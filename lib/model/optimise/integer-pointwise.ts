/** Sums, pools and moves of bytes. */
import { sizeOf } from '../../numeric/shapes.js';
import { NONE, type ValueId } from '../program/program.js';
import {
  anyByte,
  boundsOf,
  bytesOf,
  lookedUp,
  numbersOf,
  sameTerm,
  type Target,
  uniformly,
} from './quantised-value.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

/** A sum or product of bytes. */
export function sumOrProduct(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  if (before.op !== 'binary' || (before.attrs.kind !== 'add' && before.attrs.kind !== 'mul')) return false;
  const [a, b] = before.inputs.map((id) => uniformly(region, id));
  const requant = boundsOf(before.attrs.act, target);
  if (!a || !b || !requant) return false;
  const { node, attrs } = before;
  const ratio = (factor: number) => Math.fround(factor / target.term.factor);
  const terms =
    attrs.kind === 'add'
      ? ([
          { zero: a.term.zero, factor: ratio(a.term.factor) },
          { zero: b.term.zero, factor: ratio(b.term.factor) },
        ] as const)
      : ([
          { zero: a.term.zero, factor: ratio(Math.fround(a.term.factor * b.term.factor)) },
          { zero: b.term.zero, factor: 1 },
        ] as const);
  const inputs = [a.bytes, b.bytes];
  const { outputs } = quantize;
  region.replace(
    [before, quantize],
    [{ op: 'qbinary', node, inputs, outputs, attrs: { kind: attrs.kind as 'add', terms, requant } }],
  );
  return true;
}

/** The mean of each channel. */
export function globalPool(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const x =
    before.op === 'globalPool' && before.attrs.kind === 'avg'
      ? uniformly(region, before.inputs[0]!)
      : undefined;
  if (!x) return false;
  const size = sizeOf(region.shape(x.bytes).slice(2));
  const factor = Math.fround(x.term.factor / Math.fround(target.term.factor * size));
  const attrs = {
    terms: [{ zero: x.term.zero, factor }] as const,
    requant: anyByte(target.dtype, target.term.zero),
  };
  const { node } = before;
  region.replace(
    [before, quantize],
    [{ op: 'qglobalPool', node, inputs: [x.bytes], outputs: quantize.outputs, attrs }],
  );
  return true;
}

/** Steps that take bytes as well as floats, and keep their order. */
export const MOVES: ReadonlySet<WorkOp['op']> = new Set([
  'reshape',
  'transpose',
  'slice',
  'expand',
  'concat',
  'gather',
  'pad',
  'pool',
]);

/** The inputs whose elements a step moves; others say where. */
export function movedInputs({ op, inputs }: WorkStep): readonly ValueId[] {
  return op === 'concat' ? inputs : inputs.slice(0, 1);
}

/** A step that only moves elements moves bytes; those with another scale are brought to the target's first. */
export function move(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  if (!MOVES.has(before.op) || before.outputs.length !== 1) return false;
  if (before.op === 'pool' && before.attrs.kind !== 'max') return false;
  const moved = movedInputs(before);
  const sources = moved.map((id) => uniformly(region, id));
  if (sources.some((source) => !source)) return false;
  const others = before.op === 'pad' ? padValue(region, before, target) : before.inputs.slice(moved.length);
  if (!others) return false;
  const steps: WorkStep[] = [];
  const bytes = sources.map((source) => {
    const { bytes: from, dtype, term } = source!;
    if (dtype === target.dtype && sameTerm(term, target.term)) return from;
    const data = bytesOf(numbersOf(dtype, term), target.dtype, target.term);
    const constant = lookedUp(region, from, data, target.dtype);
    if (constant !== undefined) return constant;
    const entries = region.addValue(`${before.node}.table`, target.dtype, [256], data);
    const y = region.addValue(`${before.node}.requantised`, target.dtype, region.shape(from));
    steps.push({ op: 'lookup', node: before.node, inputs: [from, entries], outputs: [y], attrs: {} });
    return y;
  });
  const fused = { ...before, inputs: [...bytes, ...others], outputs: quantize.outputs } as WorkStep;
  region.replace([before, quantize], [...steps, fused]);
  return true;
}

/** What a pad fills with, as a byte of the target. */
function padValue(
  region: Region,
  { node, inputs: [, value = NONE] }: WorkStepNamed<'pad'>,
  target: Target,
): readonly ValueId[] | undefined {
  const real = value === NONE ? Float32Array.of(0) : region.value(value).data;
  if (!(real instanceof Float32Array)) return undefined;
  const byte = bytesOf(real, target.dtype, target.term);
  return [byte[0] === 0 ? NONE : region.addValue(`${node}.value`, target.dtype, [], byte)];
}
