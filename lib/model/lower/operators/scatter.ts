import { integersIn } from '../../../kernels/scatter.js';
import { sameShape } from '../../../numeric/shapes.js';
import { recalled } from '../../../tensor/recall.js';
import { isDue, type Sliced } from '../../../util/slices.js';
import type { ScatterKind, ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/** An operand of indices; constant ones are checked against the lengths of what they index, by column. */
function indicesOf(node: NodeLowering, index: number, lengths: readonly number[]): ValueId {
  const id = node.input(index);
  const { dtype, data } = node.value(id);
  if (dtype !== 'int32' && dtype !== 'int64') {
    node.invalid(`its indices are ${dtype}; expected int32 or int64`);
  }
  if (!data) return id;
  const elements = recalled(data);
  const named = integersIn({ dtype, data: elements });
  for (let i = 0; i < elements.length; i++) {
    const [at, length] = [named(i), lengths[i % lengths.length]!];
    if (at < -length || at >= length) node.invalid(`index ${at} is outside its input`);
  }
  return id;
}

/** Operands of GatherElements and ScatterElements: indices have the rank of the data, and are no longer on other axes. */
function elements(node: NodeLowering): { data: ValueId; indices: ValueId; axis: number } {
  const data = node.input(0);
  const shape = node.shape(data);
  const axis = node.axis(node.number('axis', 0), shape.length);
  const indices = indicesOf(node, 1, [shape[axis]!]);
  const own = node.shape(indices);
  if (own.length !== shape.length || own.some((length, i) => i !== axis && length > shape[i]!)) {
    node.invalid(`its indices [${own}] don't fit its input [${shape}] along axis ${axis}`);
  }
  return { data, indices, axis };
}

function gatherElements(node: NodeLowering): ValueId {
  const { data, indices, axis } = elements(node);
  const output = { dtype: node.value(data).dtype, shape: node.shape(indices) };
  return node.step('gatherElements', [data, indices], output, { axis });
}

const REDUCTIONS: Readonly<Record<string, ScatterKind>> = {
  none: 'set',
  add: 'add',
  mul: 'mul',
  min: 'min',
  max: 'max',
};

function updates(node: NodeLowering, data: ValueId, shape: readonly number[]): [ValueId, ScatterKind] {
  const id = node.input(2);
  const { dtype, shape: own } = node.value(id);
  if (dtype !== node.value(data).dtype || !sameShape(own, shape)) {
    node.invalid(
      `its updates are ${dtype}[${own}]; expected ${node.value(data).dtype}[${shape}] for these indices`,
    );
  }
  const name = node.string('reduction', 'none');
  return [id, REDUCTIONS[name] ?? node.invalid(`its reduction '${name}' is unknown`)];
}

function* scatterElements(node: NodeLowering): Sliced<readonly ValueId[]> {
  const { data, indices, axis } = elements(node);
  const [values, reduction] = updates(node, data, node.shape(indices));
  // Behind a cut the graph's largest steps are these, and reading millions of indices takes a while, too.
  if (isDue()) yield;
  return [node.step('scatterElements', [data, indices, values], node.value(data), { axis, reduction })];
}

/** The operands' indices, and the shape of what their rows name behind the first `batchDims` axes. */
function named(node: NodeLowering, data: ValueId, batchDims: number): { indices: ValueId; shape: number[] } {
  const shape = node.shape(data);
  const own = node.shape(node.input(1));
  const depth = own.at(-1) ?? 0;
  const batched = batchDims < own.length && sameShape(own.slice(0, batchDims), shape.slice(0, batchDims));
  if (own.length === 0 || !batched || depth < 1 || batchDims + depth > shape.length) {
    node.invalid(`its indices [${own}] don't fit its input [${shape}]`);
  }
  const indices = indicesOf(node, 1, shape.slice(batchDims, batchDims + depth));
  return { indices, shape: [...own.slice(0, -1), ...shape.slice(batchDims + depth)] };
}

function gatherNd(node: NodeLowering): ValueId {
  const data = node.input(0);
  const batchDims = node.number('batch_dims', 0);
  if (!Number.isInteger(batchDims) || batchDims < 0) node.invalid(`its batch_dims is ${batchDims}`);
  const { indices, shape } = named(node, data, batchDims);
  return node.step('gatherNd', [data, indices], { dtype: node.value(data).dtype, shape }, { batchDims });
}

function scatterNd(node: NodeLowering): ValueId {
  const data = node.input(0);
  const { indices, shape } = named(node, data, 0);
  const [values, reduction] = updates(node, data, shape);
  return node.step('scatterNd', [data, indices, values], node.value(data), { reduction });
}

export const SCATTER: OperatorTable = {
  GatherElements: { lower: gatherElements },
  GatherND: { lower: gatherNd },
  Scatter: { lower: scatterElements },
  ScatterElements: { lower: scatterElements },
  ScatterND: { lower: scatterNd },
};
