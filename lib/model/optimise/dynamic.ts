/** Products of integers whose scale is known at run time only, as dynamic quantisation writes them: one step with a float result. */
import { sameShape, sizeOf } from '../../numeric/shapes.js';
import { isBigData } from '../../tensor/tensor.js';
import { NO_REQUANTISATION, NONE, type ValueId } from '../program/program.js';
import { signedWeight } from './integer-layers.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

type Product = WorkStepNamed<'qconv' | 'qmatmul'>;
const isProduct = (op: WorkOp | undefined): op is Product => op?.op === 'qconv' || op?.op === 'qmatmul';

/** Whether `shape` is that of one number for each channel of a product's result, as it is broadcast to `to`. */
function alongChannels({ op }: Product, shape: readonly number[], to: readonly number[]): boolean {
  const axis = op === 'qconv' ? 1 : to.length - 1;
  const behind = to.length - axis;
  return shape.at(-behind) === to[axis] && sizeOf(shape) === to[axis];
}

/** Fuses float(product of integers) * scale. */
export function scaleProduct(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.kind !== 'mul') return false;
  const [left, right] = step.inputs as [ValueId, ValueId];
  return scaledBy(region, step, left, right) || scaledBy(region, step, right, left);
}

function scaledBy(region: Region, step: WorkStepNamed<'binary'>, sums: ValueId, scale: ValueId): boolean {
  const cast = region.soleProducer(sums);
  const product = cast?.op === 'cast' ? region.soleProducer(cast.inputs[0]!) : undefined;
  if (!cast || !isProduct(product)) return false;
  const shape = region.shape(sums);
  const factors = sizeOf(region.shape(scale));
  const fits = factors === 1 || alongChannels(product, region.shape(scale), shape);
  const { data, dtype } = region.value(product.inputs[1]!);
  if (!fits || !sameShape(region.shape(step.outputs[0]!), shape) || region.value(scale).dtype !== 'float32')
    return false;
  if (region.value(product.outputs[0]!).dtype !== 'int32') return false;
  const [a, w, , , zero = NONE, weightZero = NONE] = product.inputs as ValueId[];
  const zeros = weightZero === NONE ? Int32Array.of(0) : region.value(weightZero).data;
  const constant = data && zeros && !isBigData(zeros) && (dtype === 'int8' || dtype === 'uint8');
  const signed = constant ? signedWeight(region, w!, zeros) : { weight: w!, zero: weightZero };
  const vector = region.addValue(`${step.node}.scale`, 'float32', [factors], region.value(scale).data);
  const { node, outputs } = step;
  const attrs = { ...product.attrs, act: step.attrs.act, requant: NO_REQUANTISATION };
  const inputs = [a!, signed.weight, NONE, vector, zero, signed.zero];
  const fused = { op: product.op, node, inputs, outputs, attrs } as WorkStep;
  const reshape: WorkStep = { op: 'reshape', node, inputs: [scale], outputs: [vector], attrs: {} };
  region.replace([product, cast, step], region.value(vector).data ? [fused] : [reshape, fused]);
  return true;
}

/**
 * Makes a constant that is added to each channel the bias of a product. A convolution adds it to the rounded product, as other runtimes
 * do: sums that differ in the last bit would be quantised to other bytes.
 */
export function shiftProduct(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.kind !== 'add') return false;
  const [left, right] = step.inputs as [ValueId, ValueId];
  return shiftedBy(region, step, left, right) || shiftedBy(region, step, right, left);
}

function shiftedBy(region: Region, step: WorkStepNamed<'binary'>, y: ValueId, bias: ValueId): boolean {
  const product = region.soleProducer(y);
  const { data, shape, name } = region.value(bias);
  if (!isProduct(product) || !(data instanceof Float32Array)) return false;
  if (region.value(y).dtype !== 'float32' || product.inputs[2] !== NONE) return false;
  if (product.attrs.act.kind !== 'none') return false;
  if (!alongChannels(product, shape, region.shape(y))) return false;
  if (!sameShape(region.shape(step.outputs[0]!), region.shape(y))) return false;
  const vector = shape.length === 1 ? bias : region.addValue(name, 'float32', [data.length], data);
  const inputs = product.inputs.with(2, vector);
  const attrs = { ...product.attrs, act: step.attrs.act };
  region.replace([product, step], [{ ...product, inputs, outputs: step.outputs, attrs } as WorkStep]);
  return true;
}
