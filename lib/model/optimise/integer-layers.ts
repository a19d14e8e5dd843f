/** Convolutions and products of matrices on bytes. */
import { inUnits, scaled } from '../../tensor/constant-loops.js';
import { extremesOf, uniformElement } from '../../tensor/extremes.js';
import { recalled } from '../../tensor/recall.js';
import { contentOf, isBigData, type NumberData, sameContent } from '../../tensor/tensor.js';
import {
  type Activation,
  NO_ACTIVATION,
  NO_REQUANTISATION,
  NONE,
  type Requantisation,
  type ValueId,
} from '../program/program.js';
import {
  type ByteType,
  boundsOf,
  dequantised,
  derive,
  isByteType,
  type Quantised,
  shifted,
  type Target,
  uniformly,
} from './quantised-value.js';
import type { Region, WorkStep, WorkStepNamed } from './region.js';

interface Operands {
  readonly op: 'qconv' | 'qmatmul';
  readonly x: NonNullable<ReturnType<typeof uniformly>>;
  readonly w: Quantised;
  readonly bias: ValueId;
  readonly channels: number;
  /** sx*sw for each channel, or one for all. */
  readonly scales: Float32Array;
  readonly transB: boolean;
}

/** The quantised operands of a convolution or matrix product. */
function operandsOf(region: Region, step: WorkStep): Operands | undefined {
  if (step.op !== 'conv' && step.op !== 'gemm' && step.op !== 'matmul') return undefined;
  const [left = NONE, right = NONE, bias = NONE, residual = NONE] = step.inputs;
  const [x, w] = [uniformly(region, left), dequantised(region, right)];
  if (!x || !w || !isByteType(w.dtype) || residual !== NONE) return undefined;
  const shape = region.shape(right);
  const transB = step.op === 'gemm' && step.attrs.transB;
  const axis =
    step.op === 'conv' || transB ? shape.length - (step.op === 'conv' ? shape.length : 2) : shape.length - 1;
  if (w.scales.length > 1 && (w.axis !== axis || (step.op !== 'conv' && shape.length !== 2)))
    return undefined;
  const op = step.op === 'conv' ? 'qconv' : 'qmatmul';
  const flipped = step.op === 'matmul' ? beforeFlip(region, w) : undefined;
  return {
    ...{ op, x, w: flipped ?? w, bias },
    channels: shape[axis]!,
    scales: scaled(w.scales, x.term.factor),
    transB: transB || flipped !== undefined,
  };
}

/** What rows and columns of `w` were before a transposition that swaps them, and that nothing else reads. */
function beforeFlip(region: Region, w: Quantised): Quantised | undefined {
  const flip = region.usedOnce(w.bytes) ? region.producerOf(w.bytes, 'transpose') : undefined;
  const rank = flip?.attrs.perm.length ?? 0;
  const swaps = flip?.attrs.perm.every((axis, i) => axis === (i < rank - 2 ? i : 2 * rank - 3 - i));
  return swaps && w.scales.length === 1 ? { ...w, bytes: flip!.inputs[0]! } : undefined;
}

/** A larger bias could make sums wrap around. */
const LARGEST_BIAS = 2 ** 30;

/** The bias as int32 in units of the products' scales; undefined when it doesn't fit. */
function integerBias(region: Region, operands: Operands): ValueId | undefined {
  const { bias, channels, scales } = operands;
  if (bias === NONE) return NONE;
  const found = dequantised(region, bias);
  const given = found ? region.value(found.bytes).data : region.value(bias).data;
  if (!given || isBigData(given) || given.length !== channels) return undefined;
  // Most quantisers give a bias the scales of the products, and no zero point.
  const alike =
    given instanceof Int32Array &&
    found !== undefined &&
    uniformElement(found.zeros) === 0 &&
    sameContent(found.scales, scales);
  const key = () =>
    `bias ${contentOf(scales)} ${found ? `${contentOf(found.scales)} ${contentOf(found.zeros)}` : ''}`;
  const data = alike ? given : derive(given, key(), () => biasIn(scales, given, found, channels));
  const { low, high } = extremesOf(data);
  if (low <= -LARGEST_BIAS || high >= LARGEST_BIAS) return undefined;
  return region.addValue(`${region.value(bias).name}.integer`, 'int32', [channels], data);
}

function biasIn(
  scales: Float32Array,
  given: NumberData,
  found: Quantised | undefined,
  channels: number,
): Int32Array {
  const numbers = new Float64Array(recalled(given));
  if (found && uniformElement(found.zeros) !== 0) {
    const { zeros } = found;
    for (let c = 0; c < channels; c++) numbers[c] = numbers[c]! - zeros[zeros.length > 1 ? c : 0]!;
  }
  return inUnits(numbers, found?.scales, scales, LARGEST_BIAS);
}

/** Constant weights of uint8 become int8, with another zero point; an absent one is 0 for all. */
export function signedWeight(
  region: Region,
  bytes: ValueId,
  given: NumberData,
): { weight: ValueId; zero: ValueId } {
  const { data, shape, name, dtype: own } = region.value(bytes);
  const shift = data && own === 'uint8' ? 128 : 0;
  const dtype = shift ? 'int8' : (own as ByteType);
  const weight = shift
    ? region.addValue(
        name,
        'int8',
        shape,
        derive(data!, 'signed', () => shifted(data as Uint8Array, new Int8Array(data!.length), -128)),
      )
    : bytes;
  if (uniformElement(given) === shift) return { weight, zero: NONE };
  const zeros = Array.from(given, (zero) => zero - shift);
  const elements = dtype === 'int8' ? Int8Array.from(zeros) : Uint8Array.from(zeros);
  const kept = data ? derive(data, `zeros ${contentOf(elements)}`, () => elements) : elements;
  return { weight, zero: region.addValue(`${name}.zero`, dtype, [zeros.length], kept) };
}

/** The step on bytes. `scales` are those of its sums; the output's type is that of `y`. */
function integerLayer(
  region: Region,
  step: WorkStepNamed<'conv' | 'gemm' | 'matmul'>,
  operands: Operands,
  bias: ValueId,
  scales: Float32Array,
  y: ValueId,
  requant: Requantisation,
  act: Activation,
): WorkStep {
  const { node } = step;
  const { op, x, w, transB } = operands;
  const { weight, zero } = signedWeight(region, w.bytes, w.zeros);
  const source = region.value(w.bytes).data ?? w.scales;
  const scale = region.addValue(`${node}.scale`, 'float32', [scales.length], scales);
  const { zero: xZero } = x.term;
  const zeroOf = (byte: number) => (x.dtype === 'int8' ? Int8Array.of(byte) : Uint8Array.of(byte));
  const input =
    xZero === 0
      ? NONE
      : region.addValue(
          `${node}.zero`,
          x.dtype,
          [1],
          derive(source, `x ${x.dtype} ${xZero}`, () => zeroOf(xZero)),
        );
  const inputs = [x.bytes, weight, bias, scale, input, zero];
  const outputs = [y];
  if (op === 'qmatmul' || step.op !== 'conv')
    return { op: 'qmatmul', node, inputs, outputs, attrs: { transB, act, requant } };
  const { strides, pads, dilations, group } = step.attrs;
  return { op: 'qconv', node, inputs, outputs, attrs: { strides, pads, dilations, group, act, requant } };
}

function actOf(step: WorkStep): Activation {
  return step.op === 'conv' || step.op === 'gemm' || step.op === 'binary' ? step.attrs.act : NO_ACTIVATION;
}

/** The scales of the sums, in units of `factor` if it is given: the same array for each program of a model. */
function scalesOf({ x, w, scales }: Operands, factor?: number): Float32Array {
  const key = `scales ${x.term.factor} ${factor}`;
  return derive(w.scales, key, () =>
    factor === undefined ? scales : scaled(scales, factor, true),
  ) as Float32Array;
}

/** A convolution or matrix product. */
export function layer(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const operands = operandsOf(region, before);
  const requant = operands && boundsOf(actOf(before), target);
  const bias = requant && integerBias(region, operands);
  if (bias === undefined || !operands || !requant) return false;
  const scales = scalesOf(operands, target.term.factor);
  const { low, high } = extremesOf(scales);
  if (!(low > 0 && high < Number.POSITIVE_INFINITY)) return false;
  const step = before as WorkStepNamed<'conv' | 'gemm' | 'matmul'>;
  const fused = integerLayer(
    region,
    step,
    operands,
    bias,
    scales,
    quantize.outputs[0]!,
    requant,
    NO_ACTIVATION,
  );
  region.replace([before, quantize], [fused]);
  return true;
}

/** A layer of quantised operands whose result stays a float. */
export function floatLayer(region: Region, step: WorkStep): void {
  const y = step.outputs[0]!;
  const operands = operandsOf(region, step);
  const bias = operands && integerBias(region, operands);
  if (!operands || bias === undefined || !region.value(operands.w.bytes).data) return;
  const scales = scalesOf(operands);
  if (!(extremesOf(scales).low > 0)) return;
  const layer = step as WorkStepNamed<'conv' | 'gemm' | 'matmul'>;
  region.replace(
    [step],
    [integerLayer(region, layer, operands, bias, scales, y, NO_REQUANTISATION, actOf(step))],
  );
}
