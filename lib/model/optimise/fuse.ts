import { sameShape } from '../../numeric/shapes.js';
import { append } from '../../util/maps.js';
import { atOnce, isDue, type Sliced } from '../../util/slices.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../program/program.js';
import { affineStep, asChannelAffine, foldIntoAffine, foldIntoLayer } from './affine.js';
import { matchAttention } from './attention.js';
import { mergeTransposes, SINKING, sinkTranspose } from './channels-last.js';
import { scaleProduct, shiftProduct } from './dynamic.js';
import { matchGelu, matchLayerNorm, scaleLayerNorm } from './layer-norm.js';
import { changesNothing, forgetRanges, rangeOf } from './range.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';
import { matchSwish } from './swish.js';

/** A rewriting rule: true when it changed the region. */
type Rule = (region: Region, step: WorkStep) => boolean;
/** By the operator of the steps that they look at. */
type Rules = ReadonlyMap<WorkOp['op'], readonly Rule[]>;
type RuleOf = readonly [rule: Rule, ...operators: WorkStep['op'][]];

const SIMPLIFICATIONS: readonly RuleOf[] = [
  [dropNoOp, 'reshape', 'expand', 'cast', 'concat', 'slice', 'pad', 'transpose', 'unary'],
  [mergeReshapes, 'reshape'],
  [mergeTransposes, 'transpose'],
  [toGlobalPool, 'reduceMean', 'pool'],
  [flattenPool, 'reshape'],
  [clipToRelu, 'unary'],
  [dropIdleActivation, 'unary'],
];
const SIMPLIFY = byOperator(SIMPLIFICATIONS);
const FUSE = byOperator([
  ...SIMPLIFICATIONS,
  [matMulToGemm, 'matmul'],
  [scaleProduct, 'binary'],
  [shiftProduct, 'binary'],
  [matchAttention, 'matmul'],
  [matchLayerNorm, 'binary'],
  [scaleLayerNorm, 'binary'],
  [matchGelu, 'binary'],
  [foldAffine, 'affine', 'binary'],
  [toAffine, 'binary'],
  [sinkTranspose, ...SINKING],
  [matchSwish, 'binary'],
  [fuseActivation, 'unary'],
]);

function byOperator(rules: readonly RuleOf[]): Rules {
  const found = new Map<WorkOp['op'], Rule[]>();
  for (const [rule, ...operators] of rules) for (const op of operators) append(found, op, rule);
  return found;
}

/** Removes steps that compute nothing and brings equivalent forms into one. Changes no element. */
export function simplify(region: Region): Sliced<void> {
  return rewrite(region, SIMPLIFY);
}

/** Folds affine maps into layers and pointwise functions into the epilogue of the step before. */
export function fuse(region: Region): Sliced<void> {
  return rewrite(region, FUSE);
}

/**
 * Turns the addition of a layer's output and another tensor into that layer's `residual` input. A value in `streams`
 * is the residual stream: the layer that produces it takes no sum, because it precedes the block.
 */
export function fuseResiduals(region: Region, streams: ReadonlySet<ValueId>): Sliced<void> {
  return rewrite(
    region,
    new Map([['binary', [(within: Region, step: WorkStep) => fuseResidual(within, step, streams)]]]),
  );
}

/** Of all rules on one operation. */
const RULES_EFFORT = 8;

function* rewrite(region: Region, rules: Rules): Sliced<void> {
  region.removeDead();
  for (let changed = true; changed && !region.effort.spent; ) {
    changed = false;
    forgetRanges(region);
    const { ops } = region;
    for (let i = 0; i < ops.length; i++) {
      const op = ops[i]!;
      if (region.effort.spent) break;
      region.effort.spend(RULES_EFFORT);
      if (isDue()) yield;
      if (op.op === 'select') changed = (region.has(op) && sinkActivation(region, op)) || changed;
      else if (op.op === 'if') region.changeBranches(op, (branch) => atOnce(rewrite(branch, rules)));
      else if (rewriteStep(region, op, rules)) changed = true;
    }
    region.removeDead();
  }
}

/** Applies the first rule that fits. */
function rewriteStep(region: Region, step: WorkStep, rules: Rules): boolean {
  const own = rules.get(step.op);
  if (!own || !region.has(step)) return false;
  for (let i = 0; i < own.length; i++) if (own[i]!(region, step)) return true;
  return false;
}

function dropNoOp(region: Region, step: WorkStep): boolean {
  const x = step.inputs[0]!;
  const y = step.outputs[0]!;
  if (step.outputs.length !== 1 || !computesNothing(region, step)) return false;
  if (!sameShape(region.shape(x), region.shape(y)) || region.value(x).dtype !== region.value(y).dtype)
    return false;
  region.substitute(y, x);
  region.remove(step);
  return true;
}

/** Whether the step copies its input, given that input and output agree in shape and type. */
function computesNothing(region: Region, step: WorkStep): boolean {
  switch (step.op) {
    case 'reshape':
    case 'expand':
    case 'cast':
      return true;
    case 'concat':
      return step.inputs.length === 1;
    case 'slice':
      return step.attrs.steps.every(
        (stride, axis) => stride > 0 || region.shape(step.outputs[0]!)[axis] === 1,
      );
    case 'pad':
      return step.attrs.pads.every((pad) => pad === 0);
    case 'transpose': {
      const moved = step.attrs.perm.filter((axis) => region.shape(step.inputs[0]!)[axis] !== 1);
      return moved.every((axis, i) => i === 0 || moved[i - 1]! < axis);
    }
    case 'unary':
      return step.attrs.act.kind === 'none';
    default:
      return false;
  }
}

function mergeReshapes(region: Region, step: WorkStep): boolean {
  const before = step.op === 'reshape' ? region.producerOf(step.inputs[0]!, 'reshape') : undefined;
  if (before) region.setInputs(step, before.inputs);
  return before !== undefined;
}

/** ReduceMean over all spatial axes and AveragePool of the whole image are global pools. */
function toGlobalPool(region: Region, step: WorkStep): boolean {
  const shape = step.op === 'reduceMean' || step.op === 'pool' ? region.shape(step.inputs[0]!) : [];
  if (shape.length < 3 || step.outputs.length !== 1) return false;
  if (region.value(step.inputs[0]!).dtype !== 'float32') return false;
  const spatial = shape.slice(2);
  let kind: 'max' | 'avg' = 'avg';
  if (step.op === 'reduceMean') {
    const { axes } = step.attrs;
    if (axes.length !== spatial.length || axes.some((axis, i) => axis !== i + 2)) return false;
  } else if (step.op === 'pool') {
    const { kernel, dilations, pads } = step.attrs;
    if (!sameShape(kernel, spatial) || [...pads].some((pad) => pad !== 0)) return false;
    if (dilations.some((d, i) => d !== 1 && kernel[i] !== 1)) return false;
    kind = step.attrs.kind;
  }
  const { node, inputs, outputs } = step;
  region.replace([step], [{ op: 'globalPool', node, inputs, outputs, attrs: { kind } }]);
  return true;
}

/** A global pool writes (N,C) itself. */
function flattenPool(region: Region, step: WorkStep): boolean {
  const pool = step.op === 'reshape' ? region.soleProducer(step.inputs[0]!) : undefined;
  if (pool?.op !== 'globalPool') return false;
  const flat = region.shape(pool.inputs[0]!).slice(0, 2);
  if (!sameShape(region.shape(step.outputs[0]!), flat)) return false;
  region.replace([pool, step], [{ ...pool, outputs: step.outputs }]);
  return true;
}

function clipToRelu(_region: Region, step: WorkStep): boolean {
  if (step.op !== 'unary' || step.attrs.act.kind !== 'clip') return false;
  const { alpha, beta } = step.attrs.act;
  const unbounded = beta >= 3.4028234663852886e38;
  if (!unbounded || alpha !== 0) return false;
  step.attrs = { act: { kind: 'relu', alpha: 0, beta: 0 } };
  return true;
}

/** A product with a constant matrix is a fully connected layer. */
function matMulToGemm(region: Region, step: WorkStep): boolean {
  if (step.op !== 'matmul') return false;
  const [a, b] = step.inputs as [ValueId, ValueId];
  if (region.shape(b).length !== 2 || !region.value(b).data) return false;
  const attrs = { transB: false, act: NO_ACTIVATION };
  const { node, outputs } = step;
  region.replace([step], [{ op: 'gemm', node, inputs: [a, b, NONE, NONE], outputs, attrs }]);
  return true;
}

function foldAffine(region: Region, step: WorkStep): boolean {
  const rank = region.shape(step.outputs[0]!).length;
  return foldChannels(region, step, 1) || (rank > 2 && foldChannels(region, step, rank - 1));
}

/** Whether a step may take the affine map of its channels, along `axis`, behind it. */
function isFoldable(op: WorkOp | undefined, region: Region, axis: number): boolean {
  if (op?.op === 'gemm') return axis === region.shape(op.outputs[0]!).length - 1;
  return (op?.op === 'conv' || op?.op === 'affine') && axis === 1;
}

/** The columns of a fully connected layer are the last axis of its result. */
function foldChannels(region: Region, step: WorkStep, axis: number): boolean {
  if (step.op !== 'affine' && step.op !== 'binary') return false;
  if (!step.inputs.some((id) => isFoldable(region.soleProducer(id), region, axis))) return false;
  const map = asChannelAffine(region, step, axis);
  const before = map && region.soleProducer(map.input);
  if (!before) return false;
  if (!isFoldable(before, region, axis)) return false;
  if (before.op === 'affine' && before.attrs.act.kind === 'none') {
    return foldIntoAffine(region, before, step, map.affine);
  }
  if ((before.op !== 'conv' && before.op !== 'gemm') || before.attrs.act.kind !== 'none') return false;
  return before.inputs[3] === NONE && foldIntoLayer(region, before, step, map.affine);
}

/** A product or sum with a constant for each channel becomes an affine step; a scalar stays as it is. */
function toAffine(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || region.shape(step.outputs[0]!).length < 3) return false;
  const vector = step.inputs.some((id) => {
    const { data } = region.value(id);
    return data !== undefined && data.length > 1;
  });
  const map = vector ? asChannelAffine(region, step) : undefined;
  if (!map) return false;
  region.replace([step], [affineStep(region, step, map.input, map.affine)]);
  return true;
}

/** Drops a function that cannot change its input, such as the relu of a relu. */
function dropIdleActivation(region: Region, step: WorkStep): boolean {
  if (step.op !== 'unary' || !region.producer(step.inputs[0]!)) return false;
  if (!changesNothing(step.attrs.act, () => rangeOf(region, step.inputs[0]!))) return false;
  step.attrs = { act: NO_ACTIVATION };
  return dropNoOp(region, step);
}

type WithEpilogue = WorkStepNamed<'conv' | 'gemm' | 'qconv' | 'qmatmul' | 'affine' | 'binary'>;

const WITH_EPILOGUE: ReadonlySet<WorkOp['op']> = new Set([
  'conv',
  'gemm',
  'qconv',
  'qmatmul',
  'affine',
  'binary',
]);

function hasFreeEpilogue(region: Region, op: WorkOp | undefined): op is WithEpilogue {
  if (!op || !WITH_EPILOGUE.has(op.op) || (op as WithEpilogue).attrs.act.kind !== 'none') return false;
  return region.value(op.outputs[0]!).dtype === 'float32';
}

function fuseActivation(region: Region, step: WorkStep): boolean {
  const before = step.op === 'unary' ? region.soleProducer(step.inputs[0]!) : undefined;
  if (step.op !== 'unary' || !hasFreeEpilogue(region, before)) return false;
  const fused = { ...before, outputs: step.outputs, attrs: { ...before.attrs, act: step.attrs.act } };
  region.replace([before, step], [fused as WorkStep]);
  return true;
}

/**
 * act(select(body, shortcut)) = select(act(body), act(shortcut)): the shortcut needs the activation only when the
 * block is skipped.
 */
function sinkActivation(region: Region, select: WorkOp): boolean {
  if (select.op !== 'select' || select.attrs.skipActivation.kind !== 'none') return false;
  const output = select.outputs[0]!;
  const user = region.usedOnce(output) ? region.users(output)[0] : undefined;
  if (user?.op !== 'unary') return false;
  const [score, body, shortcut] = select.inputs as [ValueId, ValueId, ValueId];
  const { act } = user.attrs;
  const idle = changesNothing(act, () => rangeOf(region, shortcut));
  const { name, dtype, shape } = region.value(body);
  const activated = region.addValue(`${name}.act`, dtype, shape);
  const step: WorkStep = {
    op: 'unary',
    node: user.node,
    inputs: [body],
    outputs: [activated],
    attrs: { act },
  };
  const fused: WorkOp = {
    ...select,
    inputs: [score, activated, shortcut],
    outputs: user.outputs,
    attrs: { ...select.attrs, skipActivation: idle ? NO_ACTIVATION : act },
  };
  region.replace([select, user], [step, fused]);
  return true;
}

function fuseResidual(region: Region, step: WorkStep, streams: ReadonlySet<ValueId>): boolean {
  if (step.op !== 'binary' || step.attrs.kind !== 'add') return false;
  const [a, b] = step.inputs as [ValueId, ValueId];
  const { shape, dtype } = region.value(step.outputs[0]!);
  if (dtype !== 'float32' || !sameShape(region.shape(a), shape) || !sameShape(region.shape(b), shape))
    return false;
  const order: [ValueId, ValueId][] = laterFirst(region, a, b);
  for (const [x, residual] of order) {
    const layer = streams.has(x) ? undefined : region.soleProducer(x);
    if ((layer?.op !== 'conv' && layer?.op !== 'gemm') || layer.attrs.act.kind !== 'none') continue;
    if (layer.inputs[3] !== NONE) continue;
    const inputs = [...layer.inputs.slice(0, 3), residual];
    const attrs = { ...layer.attrs, act: step.attrs.act };
    region.replace([layer, step], [{ ...layer, inputs, outputs: step.outputs, attrs } as WorkStep]);
    return true;
  }
  return false;
}

/** The summand with more steps before it is the body, whose last layer takes the sum. */
function laterFirst(region: Region, a: ValueId, b: ValueId): [ValueId, ValueId][] {
  const forward: [ValueId, ValueId] = [a, b];
  const backward: [ValueId, ValueId] = [b, a];
  let [left, right] = [before(region, a), before(region, b)];
  while (left !== undefined && right !== undefined) {
    [left, right] = [before(region, left), before(region, right)];
  }
  return right === undefined ? [forward, backward] : [backward, forward];
}

/** The first operand of the step that makes a value which has one reader. */
function before(region: Region, id: ValueId): ValueId | undefined {
  return region.soleProducer(id)?.inputs[0];
}
