import { ResidualSkipError } from '../../errors.js';
import { append } from '../../util/maps.js';
import { type Graph, subgraphsOf, type Unsupported } from '../read/graph.js';
import { findOperator } from './operators/index.js';

/** What a graph uses that is not implemented, including its subgraphs; each once, with all nodes that use it. */
export function unsupportedOperators({ graph }: { readonly graph: Graph }): Unsupported[] {
  const found = new Map<string, string[]>();
  const report = (op: string, nodes: readonly string[]) => {
    for (const node of nodes) append(found, op, node);
    if (nodes.length === 0) found.set(op, found.get(op) ?? []);
  };
  const visit = ({ nodes }: Graph) => {
    for (const node of nodes) {
      const operator = findOperator(node.op);
      if (!operator) report(node.op, [node.name]);
      const problem = operator?.unsupported?.(node);
      if (problem) report(`${node.op} ${problem}`, [node.name]);
      for (const subgraph of subgraphsOf(node)) visit(subgraph);
    }
  };
  for (const { op, nodes } of graph.unsupported) report(op, nodes);
  visit(graph);
  return [...found].map(([op, nodes]) => ({ op, nodes }));
}

/** Each of these graphs is looked through once, however many programs are made of it. */
const supported = new WeakSet<Graph>();

/** Whether everything that a graph uses is implemented. */
export function isSupported(graph: Graph): boolean {
  if (supported.has(graph)) return true;
  const isWhole = unsupportedOperators({ graph }).length === 0;
  if (isWhole) supported.add(graph);
  return isWhole;
}

const NAMED_NODES = 3;
/** Operators of layouts that onnxruntime uses inside: of blocked channels, and of channels that come last. */
const OF_LEVEL_ALL = /^com\.microsoft\.nchwc\.|^com\.microsoft\.Nhwc|^com\.ms\.internal\.nhwc\./;

/** @throws ResidualSkipError UNSUPPORTED_MODEL naming everything that is not implemented */
export function requireSupported(graph: Graph): void {
  if (isSupported(graph)) return;
  const unsupported = unsupportedOperators({ graph });
  const list = unsupported.map(({ op, nodes }) => {
    if (nodes.length === 0) return op;
    const named = nodes.slice(0, NAMED_NODES).map((name) => `'${name}'`);
    const more = nodes.length > NAMED_NODES ? ` and ${nodes.length - NAMED_NODES} more` : '';
    return `${op} (${named.join(', ')}${more})`;
  });
  const levelAll = unsupported.find(({ op }) => OF_LEVEL_ALL.test(op));
  if (levelAll) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      `model: onnxruntime saved it at the optimisation level 'all', whose operators, as ${levelAll.op}, are made for one kind of ` +
        "processor; give the original file, or save it at the level 'extended' or 'basic'",
    );
  }
  throw new ResidualSkipError('UNSUPPORTED_MODEL', `model: not implemented: ${list.join('; ')}`);
}
