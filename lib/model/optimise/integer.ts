/**
 * Integer steps: where an operator is between `dequantize` and `quantize`, as quantisers write it, it becomes one step on bytes.
 * What can't be expressed in bytes stays as it is, on floats.
 */
import { activate } from '../../kernels/activation.js';
import { contentOf, type TensorData } from '../../tensor/tensor.js';
import { isDue, type Sliced } from '../../util/slices.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../program/program.js';
import { Cone } from './cone.js';
import { floatLayer, layer } from './integer-layers.js';
import { globalPool, move, sumOrProduct } from './integer-pointwise.js';
import { floatPool } from './integer-pools.js';
import {
  type ByteType,
  bytesOf,
  dequantised,
  foldDequantised,
  lookedUp,
  numbersOf,
  sameTerm,
  type Target,
  targetOf,
  uniformly,
} from './quantised-value.js';
import { forgetRanges } from './range.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';
import { makeUnsigned } from './unsigned.js';

type Rule = (
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
) => boolean;

/** What is a function of one byte becomes a table before sums and products of bytes are looked for. */
const RULES: readonly Rule[] = [requantise, layer, table, sumOrProduct, globalPool, move];

/** Replaces what is quantised by integer steps. */
export function* integerise(region: Region): Sliced<void> {
  mergeTwins(region);
  makeUnsigned(region);
  remember(region);
  for (let changed = true; changed && !region.effort.spent; ) {
    changed = false;
    forgetRanges(region);
    for (const op of region.ops) {
      if (!region.has(op)) continue;
      region.effort.spend(1);
      if (isDue()) yield;
      if (op.op === 'quantize') changed = quantised(region, op) || changed;
      else if (op.op === 'dequantize') changed = sinkDequantize(region, op) || changed;
    }
    region.removeDead();
  }
  for (const op of region.ops)
    if (region.has(op) && op.op !== 'if' && op.op !== 'select') {
      if (isDue()) yield;
      if (!floatPool(region, op)) floatLayer(region, op);
    }
  region.removeDead();
  foldDequantised(region);
}

/** A quantiser may give each reader of a value bytes of its own: equal ones become the same. */
function mergeTwins(region: Region): void {
  const first = new Map<string, ValueId>();
  const numbersOf = numbered();
  const scalingOf = (id: ValueId) => {
    const data = id === NONE ? undefined : region.value(id).data;
    return data ? numbersOf(data) : `value ${id}`;
  };
  for (const op of region.ops) {
    if (op.op !== 'quantize' && op.op !== 'dequantize') continue;
    const [x, scale, zero = NONE] = op.inputs as [ValueId, ValueId, ValueId?];
    const output = op.outputs[0]!;
    if (region.value(x).data || region.isOutput(output)) continue;
    const { dtype } = region.value(output);
    const key = `${op.op} ${x} ${op.attrs.axis} ${dtype} ${scalingOf(scale)} ${scalingOf(zero)}`;
    const twin = first.get(key);
    if (twin === undefined) first.set(key, output);
    else {
      region.substitute(output, twin);
      region.remove(op);
    }
  }
}

/** Numbers lists so that equal ones have the same number. Each list is read once. */
function numbered(): (data: TensorData) => number {
  const byList = new Map<TensorData, number>();
  const byContent = new Map<string, number>();
  return (data) => {
    let number = byList.get(data);
    if (number === undefined) {
      const content = contentOf(data);
      number = byContent.get(content) ?? byContent.size;
      byContent.set(content, number);
      byList.set(data, number);
    }
    return number;
  };
}

/** Notes in the values what their bytes stand for. */
function remember(region: Region): void {
  for (const op of region.ops) {
    const target = op.op === 'quantize' ? targetOf(region, op) : undefined;
    const id = op.outputs[0]!;
    if (target) region.values[id] = { ...region.value(id), term: target.term };
  }
}

function quantised(region: Region, quantize: WorkStepNamed<'quantize'>): boolean {
  const target = targetOf(region, quantize);
  const x = quantize.inputs[0]!;
  if (!target) return false;
  const same = uniformly(region, x);
  if (same) return requantise(region, quantize, region.producer(x) as WorkStep, target);
  const before = region.soleProducer(x);
  if (!before || before.op === 'if') return false;
  if (before.op === 'select') return sinkQuantize(region, quantize, before, target);
  return RULES.some((rule) => rule(region, quantize, before, target));
}

/** Bytes that become bytes again. */
function requantise(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const from = before.op === 'dequantize' ? uniformly(region, quantize.inputs[0]!) : undefined;
  if (!from) return false;
  if (from.dtype === target.dtype && sameTerm(from.term, target.term)) {
    region.remove(quantize);
    region.substitute(quantize.outputs[0]!, from.bytes);
    return true;
  }
  const table = bytesOf(numbersOf(from.dtype, from.term), target.dtype, target.term);
  replaceByLookup(region, [quantize], from.bytes, table, target.dtype);
  return true;
}

/** Ends with the quantize (or whichever step is last in `old`), whose output it writes. */
function replaceByLookup(
  region: Region,
  old: readonly WorkOp[],
  bytes: ValueId,
  data: Uint8Array | Int8Array,
  dtype: ByteType,
): void {
  const { node, outputs } = old[old.length - 1]!;
  const constant = lookedUp(region, bytes, data, dtype);
  if (constant !== undefined) {
    for (const op of old) region.remove(op);
    region.substitute(outputs[0]!, constant);
    return;
  }
  const entries = region.addValue(`${node}.table`, dtype, [256], data);
  region.replace(old, [{ op: 'lookup', node, inputs: [bytes, entries], outputs, attrs: {} }]);
}

/** Any function of one number, however many steps it takes: a table of its 256 results. */
function table(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  _before: WorkStep,
  target: Target,
): boolean {
  const cone = new Cone(region, quantize.inputs[0]!);
  const numbers = cone.evaluate();
  if (!numbers || cone.source === undefined) return false;
  const data = bytesOf(numbers, target.dtype, target.term);
  replaceByLookup(region, [...cone.ops, quantize], cone.source, data, target.dtype);
  return true;
}

/**
 * quantize(select(body, shortcut)) = select(quantize(body), quantize(shortcut)): the stream behind a gated block holds bytes, and a
 * shortcut whose bytes don't stay the same goes through a table.
 */
function sinkQuantize(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  select: Extract<WorkOp, { op: 'select' }>,
  target: Target,
): boolean {
  const [score, body, shortcut] = select.inputs as [ValueId, ValueId, ValueId];
  const from = uniformly(region, shortcut);
  if (from?.dtype !== target.dtype) return false;
  const numbers = numbersOf(from.dtype, from.term);
  const { skipActivation, ...rest } = select.attrs;
  const owed = new Float32Array(256);
  activate(numbers, owed, 256, skipActivation);
  const entries = bytesOf(owed, target.dtype, target.term);
  const { name, shape } = region.value(body);
  const bytes = region.addValue(`${name}.bytes`, target.dtype, shape);
  const inner: WorkStep = { ...quantize, inputs: [body, ...quantize.inputs.slice(1)], outputs: [bytes] };
  const attrs = { ...rest, skipActivation: NO_ACTIVATION };
  const skipTable = region.addValue(`${name}.table`, target.dtype, [256], entries);
  const fused: WorkOp = {
    ...select,
    inputs: [score, bytes, from.bytes],
    outputs: quantize.outputs,
    attrs: { ...attrs, skipTable },
  };
  region.replace([select, quantize], [inner, fused]);
  return true;
}

/** Rows of a quantised table are picked as bytes. */
function sinkDequantize(region: Region, dequantize: WorkStepNamed<'dequantize'>): boolean {
  const [bytes, ...scaling] = dequantize.inputs as [ValueId, ...ValueId[]];
  const found = dequantised(region, dequantize.outputs[0]!);
  const user = region.usedOnce(dequantize.outputs[0]!) ? region.users(dequantize.outputs[0]!)[0] : undefined;
  const { data, dtype } = region.value(bytes);
  if (!data || found?.scales.length !== 1 || user?.op !== 'gather') return false;
  if (user.inputs[0] !== dequantize.outputs[0] || user.inputs[1] === dequantize.outputs[0]) return false;
  const y = user.outputs[0]!;
  const { name, shape } = region.value(y);
  const moved = region.addValue(`${name}.bytes`, dtype, shape);
  const inputs = [bytes, ...user.inputs.slice(1)];
  const steps: WorkStep[] = [
    { ...user, inputs, outputs: [moved] } as WorkStep,
    { ...dequantize, inputs: [moved, ...scaling], outputs: [y] },
  ];
  region.replace([dequantize, user], steps);
  return true;
}
