/**
 * Converts int8 activations to uint8. Bytes and zero points both grow by 128, so the numbers that they represent stay the same. Kernels
 * multiply unsigned activations by signed weights, which all processors support.
 */
import type { TensorData } from '../../tensor/tensor.js';
import { NONE, type ValueId } from '../program/program.js';
import { MOVES, movedInputs } from './integer-pointwise.js';
import { dequantised, derive, shifted } from './quantised-value.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

const SHIFT = 128;

function raised(data: Int8Array): TensorData {
  return derive(data, 'unsigned', () => shifted(data, new Uint8Array(data.length), SHIFT));
}

/** Converts the outputs of `quantize`, what moves make of them, and constants that aren't weights. */
export function makeUnsigned(region: Region): void {
  const unsigned = new Map<ValueId, ValueId>();
  for (const op of region.ops) {
    if (op.op === 'if') region.changeBranches(op, makeUnsigned);
    else if (op.op === 'quantize') raiseQuantize(region, op, unsigned);
    else if (op.op === 'dequantize') raiseDequantize(region, op, unsigned);
    else if (MOVES.has(op.op)) raiseMove(region, op as WorkStep, unsigned);
  }
  region.removeDead();
}

/** The zero points of uint8; undefined when they aren't constants. */
function raisedZero(region: Region, scale: ValueId, zero: ValueId): ValueId | undefined {
  const count = region.value(scale).data?.length;
  const data = zero === NONE ? count && new Int8Array(count) : region.value(zero).data;
  return data instanceof Int8Array
    ? region.addValue('zero.unsigned', 'uint8', [data.length], raised(data))
    : undefined;
}

/** Makes `op` write uint8. A table converts the result back to int8 for its other readers. */
function writeUnsigned(
  region: Region,
  op: WorkStep,
  change: Pick<WorkStep, 'inputs' | 'attrs'>,
  unsigned: Map<ValueId, ValueId>,
): void {
  const y = op.outputs[0]!;
  const { name, shape } = region.value(y);
  const bytes = region.addValue(`${name}.unsigned`, 'uint8', shape);
  const back = Int8Array.from({ length: 256 }, (_, byte) => byte - SHIFT);
  const table = region.addValue(`${name}.table`, 'int8', [256], back);
  const { node } = op;
  region.replace(
    [op],
    [
      { ...op, ...change, outputs: [bytes] } as WorkStep,
      { op: 'lookup', node, inputs: [bytes, table], outputs: [y], attrs: {} },
    ],
  );
  unsigned.set(y, bytes);
}

function raiseQuantize(region: Region, op: WorkStepNamed<'quantize'>, unsigned: Map<ValueId, ValueId>): void {
  const [x, scale, zero = NONE] = op.inputs as [ValueId, ValueId, ValueId?];
  const fresh = region.value(op.outputs[0]!).dtype === 'int8' ? raisedZero(region, scale, zero) : undefined;
  if (fresh !== undefined) {
    writeUnsigned(region, op, { inputs: [x, scale, fresh], attrs: op.attrs }, unsigned);
  }
}

function raiseDequantize(
  region: Region,
  op: WorkStepNamed<'dequantize'>,
  unsigned: ReadonlyMap<ValueId, ValueId>,
): void {
  const [x, scale, zero = NONE] = op.inputs as [ValueId, ValueId, ValueId?];
  const bytes = unsigned.get(x) ?? raisedConstant(region, op);
  const fresh = bytes === undefined ? undefined : raisedZero(region, scale, zero);
  if (fresh !== undefined && bytes !== undefined) region.setInputs(op, [bytes, scale, fresh]);
}

/** A constant that only sums, products and moves read: their inputs must have one type. */
function raisedConstant(region: Region, op: WorkStepNamed<'dequantize'>): ValueId | undefined {
  const { data, name, shape } = region.value(op.inputs[0]!);
  const y = op.outputs[0]!;
  const read = (user: WorkOp) => user.op === 'binary' || MOVES.has(user.op);
  if (!(data instanceof Int8Array) || dequantised(region, y)?.scales.length !== 1) return undefined;
  return region.users(y).every(read) ? region.addValue(name, 'uint8', shape, raised(data)) : undefined;
}

function raiseMove(region: Region, op: WorkStep, unsigned: Map<ValueId, ValueId>): void {
  const moved = movedInputs(op);
  const bytes = moved.map((id) => unsigned.get(id));
  if (op.outputs.length !== 1 || bytes.some((id) => id === undefined)) return;
  const others = op.op === 'pad' ? [raisedPadValue(region, op)] : op.inputs.slice(moved.length);
  const inputs = [...(bytes as ValueId[]), ...others];
  writeUnsigned(region, op, { inputs, attrs: op.attrs }, unsigned);
}

function raisedPadValue(region: Region, { inputs: [, value = NONE] }: WorkStepNamed<'pad'>): ValueId {
  const data = value === NONE ? Int8Array.of(0) : (region.value(value).data as Int8Array);
  return region.addValue('value.unsigned', 'uint8', [], raised(data));
}
