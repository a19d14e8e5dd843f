import { type Graph, type Node, subgraphsOf } from './graph.js';
import { findOperator } from './operators/index.js';

/**
 * Inputs whose elements decide the program: those that reach an operand that must be constant (the target of a
 * Reshape, the bounds of a Clip). Only vectors and scalars count. A whole image that decides shapes is unsupported;
 * `specialize` reports it.
 */
export function inputsBoundByValue(graph: Graph): ReadonlySet<string> {
  const producers = new Map<string, Node>();
  const deciding: string[] = [];
  const visit = ({ nodes }: Graph) => {
    for (const node of nodes) {
      for (const name of node.outputs) producers.set(name, node);
      for (const index of findOperator(node.op)?.constantInputs ?? []) {
        deciding.push(node.inputs[index] ?? '');
      }
      for (const subgraph of subgraphsOf(node)) visit(subgraph);
    }
  };
  visit(graph);
  const seen = new Set<string>();
  for (const pending = deciding; pending.length > 0; ) {
    const name = pending.pop()!;
    if (seen.has(name)) continue;
    seen.add(name);
    const node = producers.get(name);
    if (!node || findOperator(node.op)?.shapeOnly) continue;
    for (const input of node.inputs) pending.push(input);
    for (const subgraph of subgraphsOf(node))
      for (const output of subgraph.outputs) pending.push(output.name);
  }
  return new Set(
    graph.inputs.filter(({ name, shape }) => seen.has(name) && shape.length <= 1).map(({ name }) => name),
  );
}
