/**
 * Cuts a graph where lengths depend on the elements of its inputs, as those of the boxes that NonMaxSuppression keeps. What comes before
 * is a program as any other; what follows are stages, each of which is lowered in a run, when its inputs are known: see `session/tail.ts`.
 */
import { recalled } from '../../tensor/recall.js';
import { copyData } from '../../tensor/tensor.js';
import {
  type Attribute,
  type Constant,
  type Graph,
  isConstant,
  isGraph,
  type ModelPort,
  type Node,
  type Stage,
  subgraphsOf,
} from '../read/graph.js';
import { reachable, usedNames } from '../read/order.js';
import { decidingInputs } from './bound.js';
import { findOperator } from './operators/index.js';

export interface SplitGraph {
  /** Its outputs are what the stages read, and those of the whole graph that none of them makes. */
  readonly body: Graph;
  /** In the order in which they run. */
  readonly stages: readonly Stage[];
}

/** Layers with weights, which make a stage a program. */
const LAYERS = ['Conv', 'ConvTranspose', 'Gemm', 'MatMul'];
/** Least elements of the weights of such a layer. */
const MIN_WEIGHTS = 2 ** 14;
/** What joins the layers of a stage. */
const BETWEEN = [...LAYERS, 'Add', 'BatchNormalization', 'Clip', 'HardSwish', 'Mul', 'Relu', 'Sigmoid'];

/**
 * @param everywhere cut also where an operator wants constants that are computed from the inputs; otherwise only where its result has as
 * many elements as they say
 * @returns undefined where nothing is to be cut
 */
export function splitGraph(graph: Graph, everywhere = false): SplitGraph | undefined {
  if (!everywhere && !graph.nodes.some(mayBeDataDependent)) return undefined;
  // Sequences exist while a stage is lowered: it makes those that it reads.
  for (const forced = new Set<Node>(); ; ) {
    const numbered = numberStages(graph, everywhere, forced);
    let last = 0;
    for (const stage of numbered.ofNode.values()) last = Math.max(last, stage);
    if (last === 0) return undefined;
    const moved = sequencesAcross(graph, numbered).filter((node) => !forced.has(node));
    if (moved.length === 0) return cut(graph, numbered, last);
    for (const node of moved) forced.add(node);
  }
}

interface Numbered {
  /** 0 for the body; stages with odd numbers are lowered in a run, those with even ones are programs. */
  readonly ofNode: ReadonlyMap<Node, number>;
  readonly ofValue: ReadonlyMap<string, number>;
}

function numberStages(graph: Graph, everywhere: boolean, forced: ReadonlySet<Node>): Numbered {
  const { needed } = decidingInputs(graph);
  /** Values that are computed from the elements of inputs, not from their shapes alone. */
  const computed = new Set(graph.inputs.filter(({ name }) => !needed.has(name)).map(({ name }) => name));
  const ofValue = new Map<string, number>();
  const ofNode = new Map<Node, number>();
  for (const node of graph.nodes) {
    const reads = usedNames(node);
    const before = reads.reduce((max, name) => Math.max(max, ofValue.get(name) ?? 0), 0);
    const depends = reads.some((name) => computed.has(name));
    const odd = before % 2 === 1 ? before : before + 1;
    let at = before;
    if (forced.has(node) || (depends && isDataDependent(node, computed, everywhere))) at = odd;
    else if (before > 0 && before % 2 === 1) at = isLayer(node, graph) ? before + 1 : before;
    else if (before > 0) at = joins(node, graph) ? before : odd;
    ofNode.set(node, at);
    for (const name of node.outputs) {
      ofValue.set(name, at);
      if (depends && !findOperator(node.op)?.shapeOnly) computed.add(name);
    }
  }
  return { ofNode, ofValue };
}

/** Whether `isDataDependent` may hold for a node. */
function mayBeDataDependent(node: Node): boolean {
  return findOperator(node.op)?.dataDependent !== undefined || subgraphsOf(node).length > 0;
}

function isDataDependent(node: Node, computed: ReadonlySet<string>, everywhere: boolean): boolean {
  const { dataDependent, constantInputs = [], choosingInputs = [] } = findOperator(node.op) ?? {};
  if (dataDependent?.(node)) return true;
  if (everywhere || node.op === 'Loop') {
    const decides = [...constantInputs, ...choosingInputs].some((i) => computed.has(node.inputs[i] ?? ''));
    if (decides) return true;
  }
  // What a subgraph reads may be computed.
  return subgraphsOf(node).some(({ nodes }) =>
    nodes.some((inner) => isDataDependent(inner, computed, everywhere)),
  );
}

function isLayer({ op, inputs }: Node, { constants }: Graph): boolean {
  const weights = constants.get(inputs[1] ?? '');
  return LAYERS.includes(op) && weights !== undefined && weights.data.length >= MIN_WEIGHTS;
}

/** Whether a node can be part of a program between its layers. */
function joins({ op, inputs }: Node, { constants }: Graph): boolean {
  const deciding = findOperator(op)?.constantInputs ?? [];
  return BETWEEN.includes(op) && deciding.every((i) => !inputs[i] || constants.has(inputs[i]!));
}

const MAKE_SEQUENCES = ['SequenceConstruct', 'SequenceEmpty', 'SequenceInsert', 'SplitToSequence'];

/** Nodes that make sequences which a later stage reads. */
function sequencesAcross({ nodes }: Graph, { ofNode, ofValue }: Numbered): Node[] {
  const read = new Map<string, number>();
  for (const node of nodes) {
    for (const name of usedNames(node)) read.set(name, Math.max(read.get(name) ?? 0, ofNode.get(node)!));
  }
  return nodes.filter(
    ({ op, outputs }) =>
      MAKE_SEQUENCES.includes(op) && outputs.some((name) => (read.get(name) ?? 0) > (ofValue.get(name) ?? 0)),
  );
}

function cut(graph: Graph, { ofNode, ofValue }: Numbered, last: number): SplitGraph {
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  const wanted = new Set(graph.outputs.map(({ name }) => name));
  /** The nodes of a stage, with what they read and what is read of them. */
  const partOf = (stage: number): Graph => {
    const nodes = graph.nodes.filter((node) => ofNode.get(node) === stage);
    const reads = new Set(nodes.flatMap(usedNames));
    const constants = new Map([...graph.constants].filter(([name]) => reads.has(name)));
    const made = new Set(nodes.flatMap((node) => node.outputs));
    const given = [...reads].filter((name) => !made.has(name) && !graph.constants.has(name));
    for (const name of given) wanted.add(name);
    const outputs = [...made].filter((name) => wanted.has(name));
    const ports = { inputs: given.map(portNamed), outputs: outputs.map(portNamed) };
    return copied({ ...graph, ...ports, nodes, constants });
  };
  const stages: Stage[] = [];
  for (let stage = last; stage > 0; stage--) {
    const part = partOf(stage);
    if (part.nodes.length > 0) stages.unshift({ isProgram: stage % 2 === 0, graph: part });
  }
  const left = [...wanted].filter((name) => (ofValue.get(name) ?? 0) === 0 && !inputs.has(name));
  // A program has an output.
  if (left.length === 0) left.push(...[...inputs].slice(0, 1));
  return {
    body: reachable({
      ...graph,
      nodes: graph.nodes.filter((node) => ofNode.get(node) === 0),
      outputs: left.map((name) => graph.outputs.find((port) => port.name === name) ?? portNamed(name)),
    }),
    stages,
  };
}

const portNamed = (name: string): ModelPort => ({ name, dtype: 'float32', shape: [] });

/** A graph with its own copies of all constants: the backend frees the file's memory once a program is compiled. */
function copied(graph: Graph): Graph {
  const copyOf = (one: Constant): Constant => ({ ...one, data: copyData(recalled(one.data)) });
  const nodes = graph.nodes.map((node) => {
    const attributes = [...node.attributes].map(([name, value]): [string, Attribute] => {
      if (typeof value === 'object' && isGraph(value)) return [name, copied(value)];
      return [name, isConstant(value) ? copyOf(value) : value];
    });
    return { ...node, attributes: new Map(attributes) };
  });
  const constants = [...graph.constants].map(([name, one]) => [name, copyOf(one)] as const);
  return { ...graph, nodes, constants: new Map(constants) };
}
