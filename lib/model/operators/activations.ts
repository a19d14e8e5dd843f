import { sizeOf } from '../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';
import { type Activation, type ActivationKind, NONE, type ValueId } from '../program.js';
import type { Operator, OperatorTable } from './operator.js';

function unary(node: NodeLowering, x: ValueId, kind: ActivationKind, alpha = 0, beta = 0): ValueId {
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

export const ACTIVATIONS: OperatorTable = {
  Relu: plain('relu'),
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
