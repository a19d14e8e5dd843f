import { sizeOf } from '../../numeric/shapes.js';
import { recalled } from '../../tensor/recall.js';
import { NONE, type ValueId } from '../program/program.js';
import type { Region, WorkStep, WorkStepNamed } from './region.js';

/** y = x*scale[c] + shift[c] in double, with one entry for each channel. */
export interface ChannelAffine {
  readonly scale: Float64Array;
  readonly shift: Float64Array;
}

interface Folded {
  readonly affine: ChannelAffine;
  readonly bias: Float32Array | undefined;
  readonly kind: 'rows' | 'columns';
  readonly weight: Float32Array;
  readonly shift: Float32Array;
}

/** Each is a copy of the weights: a layer that many others follow keeps its own weights for the rest. */
const MAX_FOLDS = 32;

/** Folds already made of a weight array, so that all programs of a model share the results. */
const folds = new WeakMap<Float32Array, Folded[]>();

function constant(region: Region, id: ValueId): Float32Array | undefined {
  const data = id === NONE ? undefined : region.value(id).data;
  return data instanceof Float32Array ? data : undefined;
}

/**
 * The number that `operand` holds for each channel (along `axis`) of a tensor of shape `shape`; undefined unless it is
 * constant within each channel.
 */
function perChannel(
  region: Region,
  operand: ValueId,
  shape: readonly number[],
  channelAxis: number,
): Float64Array | undefined {
  const data = constant(region, operand);
  const own = region.shape(operand);
  const channels = shape[channelAxis];
  if (!data || channels === undefined || own.length > shape.length) return undefined;
  const aligned = [...Array<number>(shape.length - own.length).fill(1), ...own];
  if (aligned.some((length, axis) => length !== 1 && (axis !== channelAxis || length !== channels)))
    return undefined;
  const known = recalled(data);
  return known.length === 1 ? new Float64Array(channels).fill(known[0]!) : new Float64Array(known);
}

/** The input and the function of a step that is an affine map of every channel (along `axis`), without its activation. */
export function asChannelAffine(
  region: Region,
  step: WorkStep,
  axis = 1,
): { readonly input: ValueId; readonly affine: ChannelAffine } | undefined {
  if (step.op === 'affine') {
    if (axis !== 1) return undefined;
    const [input, scale, shift] = step.inputs as [ValueId, ValueId, ValueId];
    const [a, b] = [constant(region, scale), constant(region, shift)];
    return a && b && { input, affine: { scale: new Float64Array(a), shift: new Float64Array(b) } };
  }
  if (step.op !== 'binary') return undefined;
  const shape = region.shape(step.outputs[0]!);
  const [left, right] = step.inputs as [ValueId, ValueId];
  const reversed = constant(region, left) !== undefined;
  const [input, operand] = reversed ? [right, left] : [left, right];
  if (region.value(input).dtype !== 'float32' || sizeOf(region.shape(input)) !== sizeOf(shape))
    return undefined;
  if (region.shape(input).length !== shape.length) return undefined;
  const c = perChannel(region, operand, shape, axis);
  if (!c) return undefined;
  const all = (element: number) => new Float64Array(c.length).fill(element);
  switch (step.attrs.kind) {
    case 'add':
      return { input, affine: { scale: all(1), shift: c } };
    case 'sub':
      return {
        input,
        affine: reversed ? { scale: all(-1), shift: c } : { scale: all(1), shift: c.map((x) => -x) },
      };
    case 'mul':
      return { input, affine: { scale: c, shift: all(0) } };
    case 'div':
      return reversed ? undefined : { input, affine: { scale: c.map((x) => 1 / x), shift: all(0) } };
  }
}

/**
 * Replaces `layer` followed by `affine` with one layer that writes `output`. False when the weights are not
 * constant. The caller has checked that nothing else reads the layer's output and that it has neither
 * activation nor residual.
 */
export function foldIntoLayer(
  region: Region,
  layer: WorkStepNamed<'conv' | 'gemm'>,
  step: WorkStep,
  affine: ChannelAffine,
): boolean {
  const [x, weightId, biasId] = layer.inputs as [ValueId, ValueId, ValueId];
  const weight = constant(region, weightId);
  const bias = constant(region, biasId);
  if (!weight || (biasId !== NONE && !bias)) return false;
  const channels = affine.scale.length;
  const rowMajor = layer.op === 'conv' || layer.attrs.transB;
  const folded = fold(weight, bias, affine, rowMajor ? 'rows' : 'columns');
  if (!folded) return false;
  const { name, shape } = region.value(weightId);
  const weightValue =
    folded.weight === weight ? weightId : region.addValue(name, 'float32', shape, folded.weight);
  const biasValue = region.addValue(`${name}.bias`, 'float32', [channels], folded.shift);
  const attrs = { ...layer.attrs, act: activationOf(step) };
  const inputs = [x, weightValue, biasValue, NONE];
  region.replace([layer, step], [{ ...layer, inputs, outputs: step.outputs, attrs } as WorkStep]);
  return true;
}

/**
 * Replaces the affine map `first`, which only `step` reads, and `step` (the affine map `second`) with one affine
 * step.
 */
export function foldIntoAffine(
  region: Region,
  first: WorkStepNamed<'affine'>,
  step: WorkStep,
  second: ChannelAffine,
): boolean {
  const inner = asChannelAffine(region, first);
  if (!inner) return false;
  const scale = inner.affine.scale.map((a, c) => a * second.scale[c]!);
  const shift = inner.affine.shift.map((b, c) => b * second.scale[c]! + second.shift[c]!);
  region.replace([first, step], [affineStep(region, step, inner.input, { scale, shift })]);
  return true;
}

/** Writes `step` as an `affine` step on `input`. */
export function affineStep(region: Region, step: WorkStep, input: ValueId, affine: ChannelAffine): WorkStep {
  const channels = affine.scale.length;
  const scale = region.addValue(`${step.node}.scale`, 'float32', [channels], new Float32Array(affine.scale));
  const shift = region.addValue(`${step.node}.shift`, 'float32', [channels], new Float32Array(affine.shift));
  const attrs = { act: activationOf(step) };
  return { op: 'affine', node: step.node, inputs: [input, scale, shift], outputs: step.outputs, attrs };
}

function activationOf(step: WorkStep) {
  if (step.op === 'affine' || step.op === 'binary') return step.attrs.act;
  return { kind: 'none', alpha: 0, beta: 0 } as const;
}

function fold(
  weight: Float32Array,
  bias: Float32Array | undefined,
  affine: ChannelAffine,
  kind: 'rows' | 'columns',
): Folded | undefined {
  const made = folds.get(weight) ?? [];
  folds.set(weight, made);
  const known = made.find(
    (f) =>
      f.kind === kind &&
      sameElements(f.bias, bias) &&
      sameElements(f.affine.scale, affine.scale) &&
      sameElements(f.affine.shift, affine.shift),
  );
  if (known || made.length === MAX_FOLDS) return known;
  const unscaled = affine.scale.every((a) => a === 1);
  const scaled = unscaled ? weight : scaledWeight(recalled(weight), affine.scale, kind);
  const shift = Float32Array.from(affine.shift, (b, c) => (bias?.[c] ?? 0) * affine.scale[c]! + b);
  const folded = { affine, bias, kind, weight: scaled, shift };
  made.push(folded);
  return folded;
}

/** Channels are the rows or the columns of the weight as a matrix. */
function scaledWeight(weight: Float32Array, scale: Float64Array, kind: 'rows' | 'columns'): Float32Array {
  const scaled = new Float32Array(weight.length);
  const channels = scale.length;
  if (kind === 'columns') {
    for (let i = 0; i < weight.length; i++) scaled[i] = weight[i]! * scale[i % channels]!;
    return scaled;
  }
  const perRow = weight.length / channels;
  for (let c = 0; c < channels; c++) {
    const factor = scale[c]!;
    for (let i = c * perRow; i < (c + 1) * perRow; i++) scaled[i] = weight[i]! * factor;
  }
  return scaled;
}

/** Bit for bit: each length of a text compares all of them. */
function sameElements(a: NumberArray | undefined, b: NumberArray | undefined): boolean {
  if (!a || !b || a === b) return a === b;
  return bytesOf(a).equals(bytesOf(b));
}

type NumberArray = Float32Array | Float64Array;

const bytesOf = ({ buffer, byteOffset, byteLength }: NumberArray) =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
