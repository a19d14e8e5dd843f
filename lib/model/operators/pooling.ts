import type { NodeLowering } from '../lowering.js';
import type { ValueId } from '../program.js';
import type { Operator, OperatorTable } from './operator.js';
import { resolveWindow, widenedPads } from './window.js';

type Kind = 'max' | 'avg';

function pool(node: NodeLowering, kind: Kind): readonly ValueId[] {
  const x = node.input(0);
  const { dtype } = node.value(x);
  // Every uint8 is a float32, so the greatest of them is found exactly.
  const bytes = dtype === 'uint8' && kind === 'max';
  if (dtype !== 'float32' && !bytes) node.unsupported(`its input is ${dtype}; only float is supported`);
  const [batch = 0, channels = 0, ...spatial] = node.shape(x);
  const kernel = node.numbers('kernel_shape') ?? node.invalid('its kernel_shape is missing');
  const ceil = node.number('ceil_mode', 0) !== 0;
  const window = resolveWindow(node, spatial, kernel, ceil);
  const { strides, pads, dilations, extents } = window;
  const countIncludePad = node.number('count_include_pad', 0) !== 0;
  if (pads.some((pad, i) => pad > (kernel[i % kernel.length]! - 1) * dilations[i % kernel.length]!)) {
    node.invalid(`its pads [${pads}] leave windows without any element`);
  }
  const shape = [batch, channels, ...extents];
  const attrs = {
    kind,
    kernel,
    strides,
    // ONNX counts what a rounded up window reaches beyond the padding as padding too.
    pads: countIncludePad ? widenedPads(window, spatial) : pads,
    dilations,
    countIncludePad,
    columnMajorIndices: node.number('storage_order', 0) !== 0,
  };
  const wantsIndices = kind === 'max' && Boolean(node.node.outputs[1]);
  const outputs = [
    { dtype: 'float32', shape } as const,
    ...(wantsIndices ? [{ dtype: 'int64', shape } as const] : []),
  ];
  const [y, ...indices] = node.steps('pool', [node.cast(x, 'float32')], outputs, attrs);
  return [node.cast(y!, dtype), ...indices];
}

function globalPool(kind: Kind): Operator {
  return {
    lower: (node) => {
      const x = node.float(0);
      if (node.rank(x) < 3) node.invalid(`its input [${node.shape(x)}] has no spatial axes`);
      const shape = node.shape(x).map((length, axis) => (axis < 2 ? length : 1));
      return node.step('globalPool', [x], { dtype: 'float32', shape }, { kind });
    },
  };
}

export const POOLING: OperatorTable = {
  MaxPool: { lower: (node) => pool(node, 'max') },
  AveragePool: { lower: (node) => pool(node, 'avg') },
  GlobalAveragePool: globalPool('avg'),
  GlobalMaxPool: globalPool('max'),
};
