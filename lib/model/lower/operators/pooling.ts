import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { Operator, OperatorTable } from './operator.js';
import { type ResolvedWindow, resolveWindow, widenedPads } from './window.js';

type Kind = 'max' | 'avg';

/**
 * @param wholeKernel with `count_include_pad`, also count what a rounded-up window covers beyond the padding, as
 *   onnxruntime's QLinearAveragePool does; AveragePool doesn't count it in PyTorch nor in onnxruntime
 */
export function poolOf(node: NodeLowering, x: ValueId, kind: Kind, wholeKernel = false): readonly ValueId[] {
  const { dtype } = node.value(x);
  const bytes = (dtype === 'uint8' || dtype === 'int8') && kind === 'max';
  if (dtype !== 'float32' && !bytes) node.unsupported(`its input is ${dtype}; only float is supported`);
  const [batch = 0, channels = 0, ...spatial] = node.shape(x);
  const kernel = node.numbers('kernel_shape') ?? node.invalid('its kernel_shape is missing');
  const ceil = node.number('ceil_mode', 0) !== 0;
  const window = resolveWindow(node, spatial, kernel, ceil);
  const { strides, pads, dilations, extents } = window;
  const countIncludePad = node.number('count_include_pad', 0) !== 0;
  if (spatial.some((length, axis) => hasEmptyWindow(window, axis, length))) {
    node.invalid(`its pads [${pads}] leave windows without any element of its input [${node.shape(x)}]`);
  }
  const shape = [batch, channels, ...extents];
  const attrs = {
    kind,
    kernel,
    strides,
    pads: countIncludePad && wholeKernel ? widenedPads(window, spatial) : pads,
    dilations,
    countIncludePad,
    columnMajorIndices: node.number('storage_order', 0) !== 0,
  };
  const wantsIndices = kind === 'max' && Boolean(node.node.outputs[1]);
  const outputs = [{ dtype, shape }, ...(wantsIndices ? [{ dtype: 'int64', shape } as const] : [])];
  return node.steps('pool', [x], outputs, attrs);
}

/** Whether some window along `axis` covers padding only. */
function hasEmptyWindow(window: ResolvedWindow, axis: number, length: number): boolean {
  const [kernel, stride, dilation] = [window.kernel[axis]!, window.strides[axis]!, window.dilations[axis]!];
  const begin = window.pads[axis]!;
  const count = window.extents[axis]!;
  if (count > 0 && (count - 1) * stride - begin >= length) return true;
  // A window that starts inside the input has its first element there.
  const before = Math.min(count, Math.ceil(begin / stride));
  for (let i = 0; i < before; i++) {
    const start = i * stride - begin;
    const tap = Math.ceil(-start / dilation);
    if (tap >= kernel || start + tap * dilation >= length) return true;
  }
  return false;
}

function globalPool(kind: Kind): Operator {
  return {
    lower: (node) => globalPoolOf(node, node.float(0), kind),
  };
}

export function globalPoolOf(node: NodeLowering, x: ValueId, kind: Kind): ValueId {
  if (node.rank(x) < 3) node.invalid(`its input [${node.shape(x)}] has no spatial axes`);
  const shape = node.shape(x).map((length, axis) => (axis < 2 ? length : 1));
  if (node.shape(x).includes(0, 2)) node.invalid(`its input [${node.shape(x)}] is empty`);
  return node.step('globalPool', [x], { dtype: 'float32', shape }, { kind });
}

export const POOLING: OperatorTable = {
  MaxPool: { lower: (node) => poolOf(node, node.input(0), 'max') },
  AveragePool: { lower: (node) => poolOf(node, node.input(0), 'avg') },
  GlobalAveragePool: globalPool('avg'),
  GlobalMaxPool: globalPool('max'),
};
