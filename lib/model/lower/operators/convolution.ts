import { sameShape } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId, type Window } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';
import { resolveWindow } from './window.js';

/** Makes the step of a convolution with these attributes and this shape of the result. */
type MakeConv = (attrs: Window & { readonly group: number }, shape: readonly number[]) => ValueId;

export function conv(node: NodeLowering): ValueId {
  const bias = node.optional(2) === NONE ? NONE : node.float(2);
  return convolve(node, node.float(0), node.float(1), bias);
}

/** The convolution that the node's attributes describe, of floats unless `make` makes another step of it. */
export function convolve(
  node: NodeLowering,
  x: ValueId,
  weight: ValueId,
  bias: ValueId,
  make: MakeConv = (attrs, shape) =>
    node.step('conv', [x, weight, bias, NONE], { dtype: 'float32', shape }, { ...attrs, act: NO_ACTIVATION }),
): ValueId {
  const [batch = 0, channels = 0, ...spatial] = node.shape(x);
  const [filters = 0, depth, ...kernel] = node.shape(weight);
  const group = node.number('group', 1);
  const declared = node.numbers('kernel_shape') ?? kernel;
  if (node.rank(x) < 3 || node.rank(weight) !== node.rank(x) || !sameShape(declared, kernel)) {
    node.invalid(
      `its weight [${node.shape(weight)}] doesn't fit its input [${node.shape(x)}] or its kernel_shape`,
    );
  }
  if (
    !Number.isInteger(group) ||
    group < 1 ||
    depth === undefined ||
    depth * group !== channels ||
    filters % group !== 0
  ) {
    node.invalid(
      `its weight [${node.shape(weight)}] in ${group} groups doesn't fit an input of ${channels} channels`,
    );
  }
  if (bias !== NONE && !sameShape(node.shape(bias), [filters])) {
    node.invalid(`its bias [${node.shape(bias)}] doesn't fit ${filters} filters`);
  }
  const { strides, pads, dilations, extents } = resolveWindow(node, spatial, kernel);
  return make({ strides, pads, dilations, group }, [batch, filters, ...extents]);
}

export const CONVOLUTION: OperatorTable = { Conv: { lower: conv } };
