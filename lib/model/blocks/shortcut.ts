import { uniformElement } from '../../tensor/extremes.js';
import type { Region, WorkOp, WorkStepNamed } from '../optimise/region.js';
import { between, dependsOn } from '../optimise/search.js';
import { NONE, type ShortcutKind, type ValueId } from '../program/program.js';

/** The path of a shortcut from the value before a block to the sum behind it. */
export interface ShortcutPath {
  readonly kind: ShortcutKind;
  /** The value that both the shortcut and the body start from. */
  readonly input: ValueId;
  /** Convolutions and fully connected layers on the shortcut. */
  readonly layers: number;
}

const LENGTH = 12;
/** Steps that normalise their first input. */
const NORMS: ReadonlySet<string> = new Set(['layerNorm']);

/**
 * The path from `shortcut` back to a value that `body` is computed from, if it looks like a shortcut: the value
 * itself; a linear projection (1x1 convolution, possibly after pooling and with a normalisation); or the parameter-free "option A" of He et
 * al. 2015 (subsampling, new channels filled with zeros).
 */
export function shortcutPath(region: Region, shortcut: ValueId, body: ValueId): ShortcutPath | undefined {
  if (dependsOn(region, body, shortcut)) return { kind: 'identity', input: shortcut, layers: 0 };
  let at = shortcut;
  let layers = 0;
  let projects = false;
  for (let length = 0; length < LENGTH; length++) {
    const op = region.producer(at);
    const before = op && linearInput(region, op);
    if (!op || before === undefined) return undefined;
    if (op.op === 'conv' || op.op === 'gemm' || op.op === 'qconv' || op.op === 'qmatmul') layers++;
    projects ||= layers > 0 || op.op === 'affine' || op.op === 'binary' || NORMS.has(op.op);
    at = before;
    if (!dependsOn(region, body, at)) continue;
    if (!projects && channels(region, shortcut) < channels(region, at)) return undefined;
    return { kind: projects ? 'projection' : 'padded', input: at, layers };
  }
  return undefined;
}

function channels(region: Region, id: ValueId): number {
  return region.shape(id)[1] ?? 1;
}

/** The one varying input of an operation that a shortcut may contain. */
function linearInput(region: Region, op: WorkOp): ValueId | undefined {
  if (NORMS.has(op.op)) return op.inputs[0];
  switch (op.op) {
    case 'conv':
    case 'gemm':
      return op.attrs.act.kind === 'none' && op.inputs[3] === NONE ? op.inputs[0] : undefined;
    case 'affine':
      return op.attrs.act.kind === 'none' ? op.inputs[0] : undefined;
    case 'binary':
      return normalised(region, op) ?? scaled(region, op);
    case 'qconv':
    case 'qmatmul':
    // Bytes with another scale.
    case 'lookup':
    case 'dequantize':
    case 'quantize':
    case 'pool':
    case 'pad':
    case 'reshape':
      return op.inputs[0];
    case 'slice':
      return picksOne(region, op) ? undefined : op.inputs[0];
    case 'concat': {
      const varying = op.inputs.filter((id) => !isZero(region, id));
      return varying.length === 1 ? varying[0] : undefined;
    }
    default:
      return undefined;
  }
}

/** Whether the step takes one of many positions, as a recurrence that is written out does: no path for a whole map. */
function picksOne(region: Region, { inputs, outputs, attrs }: WorkStepNamed<'slice'>): boolean {
  const [from, to] = [region.shape(inputs[0]!), region.shape(outputs[0]!)];
  return to.some((length, axis) => length === 1 && from[axis]! > 1 && attrs.steps[axis] === 1);
}

/** Steps from the end of a normalisation back to its input. */
const NORM_LENGTH = 6;

/** The value that `id` is a normalisation of, with its factor and shift, if it is one. */
export function normSource(region: Region, id: ValueId): ValueId | undefined {
  let at = id;
  for (let length = 0; length < NORM_LENGTH; length++) {
    const op = region.producer(at);
    if (op && NORMS.has(op.op)) return op.inputs[0];
    const source = op?.op === 'binary' ? normalised(region, op) : undefined;
    if (source !== undefined) return source;
    const before =
      op?.op === 'binary' || op?.op === 'affine' || op?.op === 'reshape'
        ? linearInput(region, op)
        : undefined;
    if (before === undefined) return undefined;
    at = before;
  }
  return undefined;
}

/** x, where `op` multiplies x - mean(x) by a factor that is computed from statistics of x alone. */
function normalised(region: Region, op: WorkStepNamed<'binary'>): ValueId | undefined {
  if ((op.attrs.kind !== 'mul' && op.attrs.kind !== 'div') || op.attrs.act.kind !== 'none') return undefined;
  const [a, b] = op.inputs as [ValueId, ValueId];
  const pairs = op.attrs.kind === 'mul' ? [[a, b] as const, [b, a] as const] : [[a, b] as const];
  for (const [centred, factor] of pairs) {
    const sub = region.producerOf(centred, 'binary');
    const [x, mean] = sub?.attrs.kind === 'sub' ? sub.inputs : [];
    const average = mean === undefined ? undefined : region.producer(mean);
    if (x === undefined || !average || !averages(average) || average.inputs[0] !== x) continue;
    const statistics = between(region, x, factor);
    if (statistics.length > 0 && statistics.every(isStatistic)) return x;
  }
  return undefined;
}

/** Whether the step is part of a variance, of its root or of its reciprocal. */
function isStatistic(op: WorkOp): boolean {
  if (op.op === 'unary') return op.attrs.act.kind === 'sqrt' || op.attrs.act.kind === 'reciprocal';
  return op.op === 'binary' || op.op === 'reshape' || averages(op);
}

function averages(op: WorkOp): boolean {
  return op.op === 'reduceMean' || (op.op === 'globalPool' && op.attrs.kind === 'avg');
}

/** The operand that a step scales or shifts by a constant for each channel. */
function scaled(region: Region, { attrs, inputs }: WorkStepNamed<'binary'>): ValueId | undefined {
  if (attrs.act.kind !== 'none') return undefined;
  const isVector = (id: ValueId) => (region.value(id).data?.length ?? 0) > 1;
  const [x, ...others] = inputs.filter((id) => !isVector(id));
  return others.length === 0 ? x : undefined;
}

/** A constant of zeros, or something multiplied by zeros. */
function isZero(region: Region, id: ValueId): boolean {
  const pending = new Set([id]);
  for (const at of pending) {
    const { data } = region.value(at);
    if (data && uniformElement(data) === 0) return true;
    const product = region.producerOf(at, 'binary');
    if (product?.attrs.kind === 'mul') for (const factor of product.inputs) pending.add(factor);
  }
  return false;
}
