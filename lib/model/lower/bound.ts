import { type Graph, type ModelPort, type Node, subgraphsOf } from '../read/graph.js';
import { findOperator } from './operators/index.js';

/** Inputs whose elements decide the program. */
export interface DecidingInputs {
  /**
   * Those that reach an operand that must be constant (the target of a Reshape, the bounds of a Clip). Only vectors and
   * scalars count. A whole image that decides shapes is unsupported; `specialize` reports it.
   */
  readonly needed: ReadonlySet<string>;
  /** And single integers or bools that choose a branch of an If: a sample rate, or whether there is a cache. */
  readonly withChoices: ReadonlySet<string>;
}

export function decidingInputs(graph: Graph): DecidingInputs {
  const operands: string[] = [];
  const conditions: string[] = [];
  const visit = ({ nodes }: Graph) => {
    for (let n = 0; n < nodes.length; n++) {
      const node = nodes[n]!;
      const operator = findOperator(node.op);
      if (operator?.constantInputs)
        for (const index of operator.constantInputs) operands.push(node.inputs[index] ?? '');
      if (operator?.choosingInputs)
        for (const index of operator.choosingInputs) conditions.push(node.inputs[index] ?? '');
      subgraphsOf(node).forEach(visit);
    }
  };
  visit(graph);
  const producers = operands.length + conditions.length > 0 ? producersIn(graph) : new Map<string, Node>();
  const decide = sourcesOf(operands, producers);
  const choose = sourcesOf(conditions, producers);
  const needed = graph.inputs.filter(({ name, shape }) => decide.has(name) && shape.length <= 1);
  const choices = graph.inputs.filter((input) => choose.has(input.name) && isChoice(input));
  const names = (inputs: readonly ModelPort[]) => new Set(inputs.map(({ name }) => name));
  return { needed: names(needed), withChoices: names([...needed, ...choices]) };
}

/** By output, also of subgraphs. */
function producersIn({ nodes }: Graph, found = new Map<string, Node>()): ReadonlyMap<string, Node> {
  for (const node of nodes) {
    for (const name of node.outputs) found.set(name, node);
    for (const subgraph of subgraphsOf(node)) producersIn(subgraph, found);
  }
  return found;
}

/** One integer or bool. */
function isChoice({ shape, dtype, anyRank }: ModelPort): boolean {
  return dtype !== 'float32' && !anyRank && shape.every((length) => length === 1) && shape.length <= 1;
}

/** All values that the elements of those in `names` depend on. */
function sourcesOf(names: readonly string[], producers: ReadonlyMap<string, Node>): ReadonlySet<string> {
  const seen = new Set<string>();
  for (const pending = [...names]; pending.length > 0; ) {
    const name = pending.pop()!;
    if (seen.has(name)) continue;
    seen.add(name);
    const node = producers.get(name);
    if (!node || findOperator(node.op)?.shapeOnly) continue;
    for (const input of node.inputs) pending.push(input);
    for (const subgraph of subgraphsOf(node))
      for (const output of subgraph.outputs) pending.push(output.name);
  }
  return seen;
}
