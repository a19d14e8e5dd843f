/** What shows at a glance that a network has no gates or exits: then nothing that finds them loads. */
import type { Region } from '../optimise/region.js';
import type { ValueId } from '../program/program.js';
import type { Graph } from '../read/graph.js';

/** Roundings that may leave 0 and 1 alone. */
const ROUNDINGS: ReadonlySet<string> = new Set(['round', 'floor', 'ceil', 'sign']);

/** Whether anything in a region may be a hard decision. In most networks nothing is, and nothing needs to be traced. */
export function mayDecide(region: Region): boolean {
  const isWhole = (id: ValueId) => ['int32', 'int64'].includes(region.value(id).dtype);
  return (
    region.values.some(({ dtype, data }) => dtype === 'bool' && !data) ||
    region.ops.some(
      (op) =>
        op.op === 'if' ||
        op.op === 'argMax' ||
        (op.op === 'unary' && ROUNDINGS.has(op.attrs.act.kind)) ||
        (op.op === 'cast' && isWhole(op.outputs[0]!)),
    )
  );
}

/** Whether a graph may have exits. Their blocks are known only once the graph is a program. */
export function mayHaveExits({ nodes, outputs }: Graph): boolean {
  return nodes.some(
    ({ op, outputs: made }) =>
      (op === 'Where' || op === 'If') && outputs.some(({ name }) => made.includes(name)),
  );
}

/** Whether anything chooses between two values, as an exit does. */
export function mayChoose({ ops }: Region): boolean {
  return ops.some(({ op }) => op === 'if' || op === 'where');
}
