import { sameShape } from '../../numeric/shapes.js';
import type { NodeLowering } from '../lowering.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../program.js';
import type { OperatorTable } from './operator.js';
import { resolveWindow } from './window.js';

function conv(node: NodeLowering): ValueId {
  const [x, weight] = [node.float(0), node.float(1)];
  const bias = node.optional(2) === NONE ? NONE : node.float(2);
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
  const attrs = { strides, pads, dilations, group, act: NO_ACTIVATION };
  const output = { dtype: 'float32', shape: [batch, filters, ...extents] } as const;
  return node.step('conv', [x, weight, bias, NONE], output, attrs);
}

export const CONVOLUTION: OperatorTable = { Conv: { lower: conv } };
