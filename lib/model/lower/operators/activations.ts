import { broadcast, sameShape, sizeOf } from '../../../numeric/shapes.js';
import {
  type Activation,
  type ActivationKind,
  NO_ACTIVATION,
  NONE,
  type ValueId,
} from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { arithmetic, negated } from './elementwise.js';
import type { Operator, OperatorTable } from './operator.js';

/** `kind` of each element of x, which is float32. */
export function unary(node: NodeLowering, x: ValueId, kind: ActivationKind, alpha = 0, beta = 0): ValueId {
  const act: Activation = { kind, alpha, beta };
  return node.step('unary', [x], { dtype: 'float32', shape: node.shape(x) }, { act });
}

function plain(kind: ActivationKind): Operator {
  return { lower: (node) => unary(node, node.float(0), kind) };
}

/** Bounds are attributes up to opset 10, inputs since then. */
function bounds(node: NodeLowering): [number, number] {
  if (node.opset < 11) {
    return [node.number('min', Number.NEGATIVE_INFINITY), node.number('max', Number.POSITIVE_INFINITY)];
  }
  return [
    node.optionalScalar(1, 'lower bound') ?? Number.NEGATIVE_INFINITY,
    node.optionalScalar(2, 'upper bound') ?? Number.POSITIVE_INFINITY,
  ];
}

function clip(node: NodeLowering): ValueId {
  const x = node.input(0);
  if (node.value(x).dtype === 'float32') return unary(node, x, 'clip', ...bounds(node));
  const lower = node.optional(1);
  const upper = node.optional(2);
  return limit(node, 'gt', limit(node, 'lt', x, lower), upper);
}

/**
 * Replaces the elements of an integer tensor that are `kind` (less or greater) than the scalar `bound` with the
 * bound.
 */
function limit(node: NodeLowering, kind: 'lt' | 'gt', x: ValueId, bound: ValueId): ValueId {
  if (bound === NONE) return x;
  const { dtype, shape } = node.value(x);
  const limits = node.value(bound);
  if (limits.dtype !== dtype || sizeOf(limits.shape) !== 1 || limits.shape.length > shape.length) {
    node.invalid(
      `its bound is ${limits.dtype}[${limits.shape}]; expected one ${dtype}, the type of its input`,
    );
  }
  const beyond = node.step('compare', [x, bound], { dtype: 'bool', shape }, { kind });
  return node.step('where', [beyond, bound, x], { dtype, shape }, {});
}

/** x where it isn't negative, slope*x elsewhere. */
function prelu(node: NodeLowering): ValueId {
  const x = node.float(0);
  const shape = node.shape(x);
  let slope = node.float(1);
  // Up to opset 6 a slope for each channel isn't broadcast like other operands.
  if (node.opset < 7 && node.rank(slope) === 1 && shape.length > 1) {
    slope = node.reshape(slope, [...node.shape(slope), ...shape.slice(2).map(() => 1)]);
  }
  if (!sameShape(broadcast(shape, node.shape(slope)) ?? [], shape)) {
    node.invalid(`its slope [${node.shape(slope)}] can't be broadcast to its input [${shape}]`);
  }
  const output = { dtype: 'float32', shape } as const;
  const below = unary(node, x, 'clip', Number.NEGATIVE_INFINITY, 0);
  const scaled = node.step('binary', [below, slope], output, { kind: 'mul', act: NO_ACTIVATION });
  return node.step('binary', [unary(node, x, 'relu'), scaled], output, { kind: 'add', act: NO_ACTIVATION });
}

export function absolute(node: NodeLowering, x: ValueId): ValueId {
  const { dtype } = node.value(x);
  if (dtype === 'float32') return unary(node, x, 'abs');
  return dtype.startsWith('u') ? x : arithmetic(node, 'max', x, negated(node, x));
}

/** (x > 0) - (x < 0) */
function sign(node: NodeLowering, x: ValueId): ValueId {
  const { dtype, shape } = node.value(x);
  const zero = node.cast(node.scalar(0), dtype);
  const holds = (kind: 'gt' | 'lt') =>
    node.cast(node.step('compare', [x, zero], { dtype: 'bool', shape }, { kind }), dtype);
  return arithmetic(node, 'sub', holds('gt'), holds('lt'));
}

function gelu(node: NodeLowering): ValueId {
  const form = node.string('approximate', 'none');
  if (form !== 'none' && form !== 'tanh')
    node.invalid(`its attribute approximate is '${form}'; expected none or tanh`);
  return unary(node, node.float(0), form === 'tanh' ? 'geluTanh' : 'gelu');
}

/** The function of floats; of integers what `ofIntegers` returns. */
function ofAny(kind: ActivationKind, ofIntegers: (node: NodeLowering, x: ValueId) => ValueId): Operator {
  return {
    lower: (node) => {
      const x = node.input(0);
      return node.value(x).dtype === 'float32' ? unary(node, x, kind) : ofIntegers(node, x);
    },
  };
}

/** What `inside` says where x is `kind` (less or greater) than the bound, `otherwise` elsewhere. */
function beyond(
  node: NodeLowering,
  kind: 'lt' | 'gt',
  bound: number,
  [inside, otherwise]: readonly [ValueId, ValueId],
): ValueId {
  const x = node.float(0);
  const shape = node.shape(x);
  const holds = node.step('compare', [x, node.scalar(bound)], { dtype: 'bool', shape }, { kind });
  return node.step('where', [holds, inside, otherwise], { dtype: 'float32', shape }, {});
}

function shrink(node: NodeLowering): ValueId {
  const x = node.float(0);
  const [lambda, bias] = [node.number('lambd', 0.5), node.scalar(node.number('bias', 0))];
  const above = beyond(node, 'gt', lambda, [arithmetic(node, 'sub', x, bias), node.scalar(0)]);
  return beyond(node, 'lt', -lambda, [arithmetic(node, 'add', x, bias), above]);
}

/** x * sigmoid(alpha * x) */
export function swish(node: NodeLowering, x: ValueId, alpha: number): ValueId {
  if (alpha === 1) return unary(node, x, 'silu');
  return arithmetic(node, 'mul', x, unary(node, arithmetic(node, 'mul', x, node.scalar(alpha)), 'sigmoid'));
}

export const ACTIVATIONS: OperatorTable = {
  Abs: { lower: (node) => absolute(node, node.input(0)) },
  Ceil: plain('ceil'),
  Erf: plain('erf'),
  Exp: plain('exp'),
  Floor: plain('floor'),
  Log: plain('log'),
  Mish: plain('mish'),
  Reciprocal: plain('reciprocal'),
  Cos: plain('cos'),
  Sin: plain('sin'),
  Swish: { lower: (node) => swish(node, node.float(0), node.number('alpha', 1)) },
  Round: plain('round'),
  Sign: ofAny('sign', sign),
  Softplus: plain('softplus'),
  Softsign: plain('softsign'),
  Sqrt: plain('sqrt'),
  Celu: { lower: (node) => unary(node, node.float(0), 'celu', node.number('alpha', 1)) },
  Elu: { lower: (node) => unary(node, node.float(0), 'elu', node.number('alpha', 1)) },
  Selu: {
    lower: (node) => {
      const [alpha, gamma] = [node.number('alpha', 1.6732632), node.number('gamma', 1.050701)];
      return unary(node, node.float(0), 'selu', alpha, gamma);
    },
  },
  Gelu: { lower: gelu },
  Shrink: { lower: shrink },
  ThresholdedRelu: {
    lower: (node) => beyond(node, 'gt', node.number('alpha', 1), [node.float(0), node.scalar(0)]),
  },
  PRelu: { lower: prelu },
  Relu: ofAny('relu', (node, x) =>
    arithmetic(node, 'max', x, node.cast(node.scalar(0), node.value(x).dtype)),
  ),
  Sigmoid: plain('sigmoid'),
  Tanh: plain('tanh'),
  HardSwish: plain('hardSwish'),
  LeakyRelu: { lower: (node) => unary(node, node.float(0), 'leakyRelu', node.number('alpha', 0.01)) },
  HardSigmoid: {
    lower: (node) => {
      const [alpha, beta] = [node.number('alpha', 0.2), node.number('beta', 0.5)];
      return unary(node, node.float(0), 'hardSigmoid', alpha, beta);
    },
  },
  Clip: { lower: clip, constantInputs: [1, 2] },
};
