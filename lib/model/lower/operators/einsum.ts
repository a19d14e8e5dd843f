import { range, sizeOf } from '../../../numeric/shapes.js';
import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { arithmetic } from './elementwise.js';
import { transposed } from './layout.js';
import type { OperatorTable } from './operator.js';
import { sum } from './reduction.js';

/** A tensor with a label for each axis; no label twice. */
interface Labelled {
  readonly id: ValueId;
  readonly labels: readonly string[];
}

/** The labels of each operand and of the output; axes under an ellipsis are labelled '0', '1', ... from the last. */
function parse(node: NodeLowering, ids: readonly ValueId[]): { terms: string[][]; output: string[] } {
  const equation = node.string('equation', '').replaceAll(' ', '');
  const [left = '', right] = equation.split('->');
  const texts = left.split(',');
  if (texts.length !== ids.length || !/^[A-Za-z.,]*(->[A-Za-z.]*)?$/.test(equation)) {
    node.invalid(`its equation '${equation}' doesn't fit ${ids.length} inputs`);
  }
  let widest = 0;
  const hidden = (count: number) => range(count).map((i) => String(count - 1 - i));
  const terms = texts.map((text, i) => {
    const [before = '', after] = text.split('...');
    const rank = node.rank(ids[i]!);
    const covered = rank - before.length - (after ?? '').length;
    if (covered < 0 || (after === undefined && covered > 0)) {
      node.invalid(`its equation '${equation}' doesn't fit input ${i} [${node.shape(ids[i]!)}]`);
    }
    widest = Math.max(widest, covered);
    return [...before, ...hidden(covered), ...(after ?? '')];
  });
  if (right !== undefined) {
    const [before = '', after] = right.split('...');
    const output = [...before, ...(after === undefined ? [] : hidden(widest)), ...(after ?? '')];
    const known = new Set(terms.flat());
    if (new Set(output).size < output.length || output.some((label) => !known.has(label))) {
      node.invalid(`its equation '${equation}' has an output that its inputs don't determine`);
    }
    return { terms, output };
  }
  // Without an output: the axes under the ellipsis, then the labels that occur once, in alphabetic order.
  const all = terms.flat();
  const once = [...new Set(all)].filter((label) => all.filter((other) => other === label).length === 1);
  return { terms, output: [...hidden(widest), ...once.filter((label) => /[A-Za-z]/.test(label)).sort()] };
}

/** Takes the diagonal of axes with the same label: every (length + 1)-th element of the two as one. */
function diagonal(node: NodeLowering, id: ValueId, labels: readonly string[]): Labelled {
  const again = labels.findIndex((label, i) => labels.indexOf(label) < i);
  if (again < 0) return { id, labels };
  const first = labels.indexOf(labels[again]!);
  const others = range(labels.length).filter((axis) => axis !== first && axis !== again);
  const moved = transposed(node, id, [...others, first, again]);
  const { dtype, shape } = node.value(moved);
  const length = shape.at(-1)!;
  if (length !== shape.at(-2))
    node.invalid(`its label '${labels[again]}' has the lengths ${length} and ${shape.at(-2)}`);
  const outer = shape.slice(0, -2);
  const flat = node.reshape(moved, [...outer, length * length]);
  const attrs = { starts: [...outer.map(() => 0), 0], steps: [...outer.map(() => 1), length + 1] };
  const taken = node.step('slice', [flat], { dtype, shape: [...outer, length] }, attrs);
  return diagonal(node, taken, [...others.map((axis) => labels[axis]!), labels[first]!]);
}

/** Sums the axes that nothing else needs. */
function withoutUnused(node: NodeLowering, { id, labels }: Labelled, needed: ReadonlySet<string>): Labelled {
  const axes = range(labels.length).filter((axis) => !needed.has(labels[axis]!));
  if (axes.length === 0) return { id, labels };
  return { id: sum(node, id, axes, false), labels: labels.filter((label) => needed.has(label)) };
}

/** The product of two operands, summed over the labels that only they have, as one product of matrices. */
function contract(node: NodeLowering, a: Labelled, b: Labelled, needed: ReadonlySet<string>): Labelled {
  const [left, right] = [withoutUnused(node, a, union(needed, b)), withoutUnused(node, b, union(needed, a))];
  const sizes = new Map<string, number>();
  for (const { id, labels } of [left, right]) {
    for (const [axis, label] of labels.entries()) {
      const length = node.shape(id)[axis]!;
      const known = sizes.get(label) ?? 1;
      if (known !== 1 && length !== 1 && known !== length) {
        node.invalid(`its label '${label}' has the lengths ${known} and ${length}`);
      }
      if (known === 1) sizes.set(label, length);
    }
  }
  const shared = left.labels.filter((label) => right.labels.includes(label));
  const batch = shared.filter((label) => needed.has(label));
  const inner = shared.filter((label) => !needed.has(label));
  const rows = left.labels.filter((label) => !shared.includes(label));
  const columns = right.labels.filter((label) => !shared.includes(label));
  const size = (labels: readonly string[]) => sizeOf(labels.map((label) => sizes.get(label)!));
  const laid = ({ id, labels }: Labelled, order: readonly string[], shape: readonly number[]) => {
    const moved = transposed(
      node,
      id,
      order.map((label) => labels.indexOf(label)),
    );
    const wide = node.expand(
      moved,
      order.map((label, axis) => (inner.includes(label) ? sizes.get(label)! : node.shape(moved)[axis]!)),
    );
    const lengths = node.shape(wide).slice(0, batch.length);
    return node.reshape(wide, [...lengths, ...shape]);
  };
  const lengths = batch.map((label) => sizes.get(label)!);
  const x = laid(left, [...batch, ...rows, ...inner], [size(rows), size(inner)]);
  const y = laid(right, [...batch, ...inner, ...columns], [size(inner), size(columns)]);
  const output = { dtype: 'float32', shape: [...lengths, size(rows), size(columns)] } as const;
  const product =
    inner.length === 0 && size(columns) === 1
      ? arithmetic(node, 'mul', x, y)
      : node.step('matmul', [x, y], output, {});
  const labels = [...batch, ...rows, ...columns];
  return {
    id: node.reshape(
      product,
      labels.map((label) => sizes.get(label)!),
    ),
    labels,
  };
}

function union(labels: ReadonlySet<string>, other: Labelled): ReadonlySet<string> {
  return new Set([...labels, ...other.labels]);
}

/** Operands are multiplied from left to right. */
function einsum(node: NodeLowering): ValueId {
  const given = node.inputs();
  const { dtype } = node.value(given[0]!);
  const { terms, output } = parse(node, given);
  const operands = given.map((id, i) => diagonal(node, node.cast(id, 'float32'), terms[i]!));
  const needed = (from: number) =>
    new Set([...output, ...operands.slice(from).flatMap(({ labels }) => labels)]);
  const all = operands.reduce((product, operand, i) => contract(node, product, operand, needed(i + 1)));
  const { id, labels } = withoutUnused(node, all, new Set(output));
  return node.cast(
    transposed(
      node,
      id,
      output.map((label) => labels.indexOf(label)),
    ),
    dtype,
  );
}

export const EINSUM: OperatorTable = { Einsum: { lower: einsum } };
