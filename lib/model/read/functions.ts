import { ResidualSkipError } from '../../errors.js';
import { isDue, type Sliced } from '../../util/slices.js';
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto } from './proto.js';
import { toBigInt } from './tensor-proto.js';

/** Functions within functions; nodes and calls, and characters of their names, in all: a small file can ask for endless expansion. */
const MAX_DEPTH = 100;
const MAX_NODES = 2 ** 17;
const MAX_CHARACTERS = 2 ** 25;

const keyOf = (domain = '', name = '', overload = '') => JSON.stringify([domain, name, overload]);

/**
 * The model with its local functions written out: each call becomes the nodes of the function's body.
 * @throws ResidualSkipError MODEL_INVALID for functions that contain themselves, or that grow without end
 */
export function* inlineFunctions(model: ModelProto): Sliced<ModelProto> {
  const { functions = [], graph } = model;
  if (functions.length === 0 || !graph) return model;
  return { ...model, functions: [], graph: yield* new Inliner(functions).graph(graph, 0) };
}

type Rename = (name: string) => string;

class Inliner {
  private readonly functions: ReadonlyMap<string, FunctionProto>;
  private calls = 0;
  private nodes = 0;
  private characters = 0;

  constructor(functions: readonly FunctionProto[]) {
    this.functions = new Map(functions.map((f) => [keyOf(f.domain, f.name, f.overload), f]));
  }

  *graph(graph: GraphProto, depth: number): Sliced<GraphProto> {
    const nodes: NodeProto[] = [];
    for (const node of graph.node ?? []) yield* this.node(node, depth, nodes);
    return { ...graph, node: nodes };
  }

  /** Adds the node, or what it stands for, to `nodes`. */
  private *node(node: NodeProto, depth: number, nodes: NodeProto[]): Sliced<void> {
    const called = this.functions.get(keyOf(node.domain, node.opType, node.overload));
    this.nodes += 1 + (called?.input?.length ?? 0) + (called?.output?.length ?? 0);
    if (this.nodes > MAX_NODES) invalid(`its functions expand to more than ${MAX_NODES} nodes`);
    if (isDue()) yield;
    if (called) {
      for (const inner of this.call(node, called, depth + 1)) yield* this.node(inner, depth + 1, nodes);
      return;
    }
    const attribute: AttributeProto[] = [];
    for (const given of node.attribute ?? [])
      attribute.push(given.g ? { ...given, g: yield* this.graph(given.g, depth) } : given);
    nodes.push(node.attribute?.some(({ g }) => g) ? { ...node, attribute } : node);
  }

  /** The nodes of the function's body, with the names of this call. */
  private call(node: NodeProto, called: FunctionProto, depth: number): NodeProto[] {
    if (depth > MAX_DEPTH)
      invalid(`function '${called.name ?? ''}' is nested beyond a depth of ${MAX_DEPTH}`);
    const prefix = `${node.name || called.name || ''}#${this.calls++}/`;
    const own: Rename = (name) => {
      this.characters += prefix.length + name.length;
      if (this.characters > MAX_CHARACTERS)
        invalid(`the names in its functions expand to more than ${MAX_CHARACTERS} characters`);
      return prefix + name;
    };
    const { input = [], output = [] } = called;
    const inputs = new Set(input);
    const names = new Map<string, string>([['', '']]);
    for (const [i, name] of input.entries()) names.set(name, node.input?.[i] ?? '');
    // What is both an input and an output is copied.
    const passed = output.flatMap((name, i) => {
      const outer = node.output?.[i] ?? '';
      const isPassed = inputs.has(name);
      if (!isPassed) names.set(name, outer || own(name));
      return isPassed && outer ? [{ from: names.get(name)!, to: outer }] : [];
    });
    const rename: Rename = (name) => names.get(name) ?? own(name);
    const attributes = new Map([
      ...(called.attributeProto ?? []).map((given) => [given.name ?? '', given] as const),
      ...(node.attribute ?? []).map((given) => [given.name ?? '', given] as const),
    ]);
    const standard = called.opsetImport?.find(({ domain = '' }) => domain === '' || domain === 'ai.onnx');
    const opset = standard && Number(toBigInt(standard.version ?? 0));
    const body = (called.node ?? []).map((inner) => ({
      ...renamed(inner, rename, attributes),
      name: own(inner.name || inner.opType || ''),
      ...(opset !== undefined && { opset }),
    }));
    const copies = passed.map(({ from, to }) => ({ opType: 'Identity', input: [from], output: [to] }));
    return [...body, ...copies];
  }
}

/** A node of a body with the names and attributes of its call; an attribute that the call doesn't give is left out. */
function renamed(node: NodeProto, rename: Rename, given: ReadonlyMap<string, AttributeProto>): NodeProto {
  const attribute = (node.attribute ?? []).flatMap((own) => {
    const { name, refAttrName, g } = own;
    if (refAttrName) {
      const value = given.get(refAttrName);
      return value ? [{ ...value, ...(name !== undefined && { name }) }] : [];
    }
    return [g ? { ...own, g: renamedGraph(g, rename, given) } : own];
  });
  return {
    ...node,
    input: (node.input ?? []).map(rename),
    output: (node.output ?? []).map(rename),
    attribute,
  };
}

function renamedGraph(
  graph: GraphProto,
  rename: Rename,
  given: ReadonlyMap<string, AttributeProto>,
): GraphProto {
  const named = <T extends { name?: string }>(list: readonly T[] = []): T[] =>
    list.map((item) => ({ ...item, name: rename(item.name ?? '') }));
  return {
    ...graph,
    node: (graph.node ?? []).map((node) => renamed(node, rename, given)),
    initializer: named(graph.initializer),
    input: named(graph.input),
    output: named(graph.output),
  };
}

function invalid(problem: string): never {
  throw new ResidualSkipError('MODEL_INVALID', `model: ${problem}`);
}
