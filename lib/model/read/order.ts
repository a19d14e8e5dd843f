import { ResidualSkipError } from '../../errors.js';
import {
  type Constant,
  type Graph,
  type ModelPort,
  type Node,
  subgraphsOf,
  type Unsupported,
} from './graph.js';

/** A set of names, possibly with those of the graphs around. */
export interface Names {
  has(name: string): boolean;
}

/**
 * The nodes of a graph in topological order; the order of the file is kept if it is topological.
 * @param defined names of the graph's inputs and constants
 * @param outer names that a subgraph sees of the graphs around it
 * @throws ResidualSkipError MODEL_INVALID for names defined twice or not at all, and for cycles
 */
export function checkedNodes(
  nodes: readonly Node[],
  defined: ReadonlySet<string>,
  outer: Names,
  outputs: readonly ModelPort[],
  where: string,
): readonly Node[] {
  const producers = new Map<string, number>();
  for (let index = 0; index < nodes.length; index++) {
    const node = nodes[index]!;
    for (let i = 0; i < node.outputs.length; i++) {
      const name = node.outputs[i]!;
      if (name === '') continue;
      if (producers.has(name) || defined.has(name)) {
        invalid(`node '${node.name}' (${node.op}): its output '${name}' is defined twice in ${where}`);
      }
      producers.set(name, index);
    }
  }
  const known = (name: string) => defined.has(name) || producers.has(name) || outer.has(name);
  const unknown = (name: string) => !known(name);
  const names = new Set<string>();
  for (const { name } of outputs) {
    if (!known(name)) invalid(`${where}: no node computes its output '${name}'`);
    if (names.has(name)) invalid(`${where}: two of its outputs have the name '${name}'`);
    names.add(name);
  }
  if (outputs.length === 0) invalid(`${where}: it has no outputs`);
  const uses = nodes.map(usedNames);
  for (let index = 0; index < nodes.length; index++) {
    const missing = uses[index]!.find(unknown);
    if (missing !== undefined) {
      const node = nodes[index]!;
      invalid(`node '${node.name}' (${node.op}): its input '${missing}' is not defined in ${where}`);
    }
  }
  return sorted(nodes, uses, producers, where);
}

const isPresent = (name: string) => name !== '';

/** What a node reads: its inputs, and what its subgraphs see of the graphs around them. A name may be there twice. */
export function usedNames(node: Node): readonly string[] {
  const own = node.inputs.includes('') ? node.inputs.filter(isPresent) : node.inputs;
  const graphs = subgraphsOf(node);
  return graphs.length === 0 ? own : [...own, ...graphs.flatMap((graph) => [...freeNames(graph)])];
}

const free = new WeakMap<Graph, ReadonlySet<string>>();

/** What a subgraph sees of the graphs around it. */
function freeNames(graph: Graph): ReadonlySet<string> {
  const known = free.get(graph) ?? namesOutside(graph);
  free.set(graph, known);
  return known;
}

function namesOutside(graph: Graph): ReadonlySet<string> {
  const bound = new Set([...graph.inputs.map(({ name }) => name), ...graph.constants.keys()]);
  for (const node of graph.nodes) for (const name of node.outputs) bound.add(name);
  const outside = new Set<string>();
  const read = (name: string) => {
    if (!bound.has(name)) outside.add(name);
  };
  for (const node of graph.nodes) for (const name of usedNames(node)) read(name);
  for (const { name } of graph.outputs) read(name);
  return outside;
}

/**
 * A graph without the nodes and constants that none of its outputs needs, and without what they alone made unsupported;
 * outputs of nodes that nothing reads lose their names.
 */
export function reachable(graph: Graph): Graph {
  const needed = new Set(graph.outputs.map(({ name }) => name));
  const live: Node[] = [];
  const isNeeded = (name: string) => needed.has(name);
  for (let index = graph.nodes.length - 1; index >= 0; index--) {
    const node = graph.nodes[index]!;
    if (!node.outputs.some(isNeeded)) continue;
    const reads = usedNames(node);
    for (let i = 0; i < reads.length; i++) needed.add(reads[i]!);
    const whole = node.outputs.every(isNeeded);
    live.push(whole ? node : { ...node, outputs: node.outputs.map((name) => (isNeeded(name) ? name : '')) });
  }
  const constants = new Map<string, Constant>();
  graph.constants.forEach((constant, name) => {
    if (isNeeded(name)) constants.set(name, constant);
  });
  const reached = { ...graph, nodes: live.reverse(), constants };
  return graph.unsupported.length === 0
    ? reached
    : { ...reached, unsupported: unsupportedIn(reached, graph) };
}

/** What of a graph isn't implemented in the part that is left. */
function unsupportedIn({ nodes, constants }: Graph, graph: Graph): Unsupported[] {
  const kept = new Set([
    ...nodes.map(({ name }) => name),
    ...constants.keys(),
    ...[...graph.inputs, ...graph.outputs].map(({ name }) => name),
  ]);
  const dropped = new Set(
    [...graph.nodes.map(({ name }) => name), ...graph.constants.keys()].filter((name) => !kept.has(name)),
  );
  return graph.unsupported.flatMap(({ op, nodes: users }): Unsupported[] => {
    const left = users.filter((name) => !dropped.has(name));
    return left.length > 0 || users.length === 0 ? [{ op, nodes: left }] : [];
  });
}

/** Kahn's algorithm; of several ready nodes, the first in the file goes first. */
function sorted(
  nodes: readonly Node[],
  uses: readonly (readonly string[])[],
  producers: ReadonlyMap<string, number>,
  where: string,
): readonly Node[] {
  const inOrder = uses.every((names, index) => names.every((name) => (producers.get(name) ?? -1) < index));
  if (inOrder) return nodes;
  const waiting = uses.map((names) => new Set(names.flatMap((name) => producers.get(name) ?? [])));
  const users: number[][] = nodes.map(() => []);
  for (const [index, needed] of waiting.entries())
    for (const producer of needed) users[producer]!.push(index);
  let ready = waiting.flatMap((needed, index) => (needed.size === 0 ? [index] : []));
  const order: Node[] = [];
  while (ready.length > 0) {
    const next: number[] = [];
    for (const index of ready) {
      order.push(nodes[index]!);
      for (const user of users[index]!) {
        waiting[user]!.delete(index);
        if (waiting[user]!.size === 0) next.push(user);
      }
    }
    ready = next.sort((a, b) => a - b);
  }
  if (order.length < nodes.length) {
    const stuck = nodes.find((_, index) => waiting[index]!.size > 0)!;
    invalid(`node '${stuck.name}' (${stuck.op}): it is part of a cycle in ${where}`);
  }
  return order;
}

function invalid(problem: string): never {
  throw new ResidualSkipError('MODEL_INVALID', problem);
}
