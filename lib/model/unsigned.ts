/**
 * int8 becomes uint8: bytes and zero points are 128 more, and stand for the same numbers. Kernels multiply unsigned activations by
 * signed weights, which all processors can.
 */
import type { TensorData } from '../tensor.js';
import { MOVES, movedInputs } from './integer-pointwise.js';
import { NONE, type ValueId } from './program.js';
import { dequantised, derive } from './quantised-value.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

const SHIFT = 128;

function raised(data: Int8Array): TensorData {
  return derive(data, 'unsigned', () => Uint8Array.from(data, (byte) => byte + SHIFT));
}

/** Of the tensors that `quantize` makes, those that moves make of them, and constants that are no weights. */
export function makeUnsigned(region: Region): void {
  const unsigned = new Map<ValueId, ValueId>();
  for (const op of [...region.ops]) {
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

/** Makes `op` write uint8; a table makes the int8 of it, for whatever else reads that. */
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
  const fresh = raisedZero(region, scale, zero);
  const bytes = unsigned.get(x) ?? raisedConstant(region, op);
  if (fresh !== undefined && bytes !== undefined) region.setInputs(op, [bytes, scale, fresh]);
}

/** A constant that sums, products and moves read, which want all their bytes of one type. */
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
  const attrs = op.op === 'pad' ? { ...op.attrs, value: op.attrs.value + SHIFT } : op.attrs;
  const inputs = [...(bytes as ValueId[]), ...op.inputs.slice(moved.length)];
  writeUnsigned(region, op, { inputs, attrs } as Pick<WorkStep, 'inputs' | 'attrs'>, unsigned);
}
