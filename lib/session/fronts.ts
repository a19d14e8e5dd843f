/** The fronts of a policy: the files that it names, as graphs that read the network's own input. */
import { dirname, join } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { LengthSeries } from '../model/length-series.js';
import { loadModel } from '../model/load.js';
import { analyseBatching } from '../model/lower/batching.js';
import { type Attribute, type Constant, type Graph, isGraph, type Node } from '../model/read/graph.js';
import type { Binding, Model, ModelFacts } from '../model/read/model.js';
import { checkModel } from '../skip/compiled-policy.js';
import type { AnyExit } from '../skip/exits.js';
import type { Front, FrontSpec } from '../skip/fronts.js';
import { encodeFrontExits } from '../skip/head-codec.js';
import type { SkipPolicy } from '../skip/policy.js';
import { describeTensor } from '../tensor/tensor.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { frontsOf } from './known-fronts.js';
import type { Network, Reading } from './network.js';
import { openNetwork } from './open-network.js';

/** A front whose file is read. */
export class LoadedFront {
  readonly #network: Pick<Network, 'compiling'>;

  /** @param network its own, which reads the inputs of the one behind it */
  constructor(
    readonly spec: FrontSpec,
    network: Pick<Network, 'compiling'>,
  ) {
    this.#network = network;
  }

  /** The same front with exits behind its blocks. */
  withExits(exits: readonly AnyExit[]): LoadedFront {
    const { exits: _, ...spec } = this.spec;
    return new LoadedFront(
      { ...spec, ...(exits.length > 0 && { exits: encodeFrontExits(exits) }) },
      this.#network,
    );
  }

  /**
   * @param front its network
   * @param network the one that it is put before
   * @throws ResidualSkipError INVALID_POLICY for inputs that don't fit
   */
  static async of(spec: FrontSpec, front: Model, network: ModelFacts): Promise<LoadedFront> {
    return new LoadedFront(spec, new LengthSeries(await inTurns(withInputsOf(network, spec, front))));
  }

  /** Its program for the inputs of the network. */
  *compiling(binding: Binding): Sliced<Front> {
    try {
      return { spec: this.spec, program: yield* this.#network.compiling(binding) };
    } catch (error) {
      throw unreadable(this.spec, error);
    }
  }
}

/** What is thrown instead of an error of a front's graph at the inputs of the network. */
function unreadable({ name }: FrontSpec, error: unknown): unknown {
  if (!(error instanceof ResidualSkipError)) return error;
  const message = `policy: its front '${name}' can't read the model's input (${error.message}); give another size, or remove it`;
  return new ResidualSkipError('INVALID_POLICY', message, { cause: error });
}

/**
 * Reads the files of a policy's fronts, which lie beside the model's own.
 * @param cache a folder for their programs
 * @throws ResidualSkipError INVALID_POLICY, POLICY_MISMATCH (a policy of another model, or a file that changed), and what `loadModel`
 * throws
 */
export async function loadFronts(
  policy: SkipPolicy,
  network: ModelFacts,
  cache: string | undefined,
): Promise<LoadedFront[]> {
  checkModel(policy, () => network.sha256);
  const fronts: LoadedFront[] = [];
  for (const spec of frontsOf(policy)) {
    if (!network.location) {
      const message = `policy: its front '${spec.name}' is the file ${spec.file} beside the model, but the model was given as bytes; give its path`;
      throw new ResidualSkipError('INVALID_POLICY', message);
    }
    const path = join(dirname(network.location.model), spec.file);
    const opened = openNetwork(path, cache, readingFront(spec, network), () => true);
    const front = await opened.catch((error: unknown) => failing(error, spec, path));
    checkFile(spec, path, front.model);
    fronts.push(new LoadedFront(spec, front));
  }
  return fronts;
}

async function failing(error: unknown, spec: FrontSpec, path: string): Promise<never> {
  if (!(error instanceof ResidualSkipError)) throw error;
  if (error.code === 'INVALID_POLICY') {
    // How another file doesn't fit isn't worth knowing.
    checkFile(spec, path, await loadModel(path));
    throw error;
  }
  const message = `policy: its front '${spec.name}' can't be loaded (${error.message}); restore that file, or make the policy again`;
  throw new ResidualSkipError(error.code, message, { cause: error });
}

function checkFile(spec: FrontSpec, path: string, { sha256 }: ModelFacts): void {
  if (sha256 === spec.sha256) return;
  const message =
    `policy: its front '${spec.name}' is a file with SHA-256 ${spec.sha256}, but ${path} has ${sha256}; ` +
    'restore that file, or make the policy again';
  throw new ResidualSkipError('POLICY_MISMATCH', message);
}

/** How the file of a front becomes a network that reads the inputs of the one behind it. */
function readingFront(spec: FrontSpec, network: ModelFacts): Reading {
  const { size, scale, offset } = spec;
  return {
    front: {
      key: { size, scale, offset, inputs: network.inputs },
      model: (own) => withInputsOf(network, spec, own),
    },
  };
}

/** The front's model, which reads the inputs of the network. */
function* withInputsOf(network: ModelFacts, spec: FrontSpec, front: Model): Sliced<Model> {
  const graph = readingInput(spec, front, network);
  try {
    const batching = yield* analyseBatching(graph, front.opset, true);
    const changed = { graph, batchingReason: undefined, loweredItems: undefined, ...batching };
    // To read the hash may be to compute it.
    return Object.create(front, Object.getOwnPropertyDescriptors(changed));
  } catch (error) {
    throw unreadable(spec, error);
  }
}

/** The front's graph with the inputs of the network: an image is resized, scaled and shifted as the front needs it. */
function readingInput(spec: FrontSpec, { graph }: Model, network: ModelFacts): Graph {
  const [own, ...others] = graph.inputs;
  const wrong = (problem: string): never => {
    const message = `policy: its front '${spec.name}' ${problem}; give a network with the model's inputs, or with one image`;
    throw new ResidualSkipError('INVALID_POLICY', message);
  };
  const { size, scale, offset } = spec;
  if (others.length > 0 || !own) {
    const missing = graph.inputs.find(({ name }) => !network.inputs.some((input) => input.name === name));
    if (missing || !own) return wrong(`has an input '${missing?.name}' that the model doesn't have`);
    return size || scale || offset
      ? wrong('has several inputs, so that none can be resized or scaled')
      : graph;
  }
  const [given, another] = network.inputs;
  if (!given || another) return wrong('reads one input, and the model several');
  const described = (port: typeof own) => describeTensor(port.dtype, port.shape);
  const lengths = own.shape.map((length, axis) => [length, given.shape[axis]]);
  const differ = ([a, b]: readonly unknown[]) => typeof a === 'number' && typeof b === 'number' && a !== b;
  // Any batch will do, and an image is resized to `size`, whatever its sides.
  const checked = lengths.slice(1, size ? 2 : undefined);
  if (own.dtype !== given.dtype || own.shape.length !== given.shape.length || checked.some(differ)) {
    return wrong(`takes ${described(own)}, and the model ${described(given)}`);
  }
  if ((size || scale || offset) && given.shape.length !== 4)
    return wrong('resizes or scales what is no image');
  const channels = given.shape[1];
  for (const [what, list] of Object.entries({ scale, offset })) {
    if (list && list.length !== channels && list.length !== 1) {
      return wrong(`has ${list.length} numbers in '${what}', and the model's input ${channels} channels`);
    }
  }
  return changed(graph, own.name, { ...own, name: given.name, shape: given.shape }, spec);
}

/** A name that no file uses. */
const named = (name: string) => `residual-skip/front/${name}`;

function changed(graph: Graph, before: string, input: Graph['inputs'][number], spec: FrontSpec): Graph {
  const nodes: Node[] = [];
  const constants = new Map<string, Constant>();
  const constant = (name: string, value: Constant) => {
    constants.set(named(name), value);
    return named(name);
  };
  let at = input.name;
  const add = (
    op: string,
    more: readonly string[],
    attributes: readonly (readonly [string, Attribute])[] = [],
  ) => {
    const output = named(op.toLowerCase());
    nodes.push({
      name: output,
      op,
      inputs: [at, ...more],
      outputs: [output],
      attributes: new Map(attributes),
      hasSubgraphs: false,
      opset: 18,
    });
    at = output;
  };
  if (spec.size) {
    const data = BigInt64Array.from(spec.size, BigInt);
    add(
      'Resize',
      ['', '', constant('size', { dtype: 'int64', shape: [2], data })],
      [
        ['mode', 'linear'],
        ['antialias', 1],
        ['exclude_outside', 1],
        ['axes', [2, 3]],
      ],
    );
  }
  const perChannel = (op: string, list: readonly number[] | undefined) => {
    if (!list) return;
    const data = Float32Array.from(list);
    add(op, [constant(op, { dtype: 'float32', shape: [1, data.length, 1, 1], data })]);
  };
  perChannel('Mul', spec.scale);
  perChannel('Add', spec.offset);
  return {
    ...graph,
    inputs: [input],
    constants: new Map([...graph.constants, ...constants]),
    nodes: [...nodes, ...graph.nodes.map((node) => reading(node, before, at))],
  };
}

/** The node, reading `to` instead of `from`. */
function reading(node: Node, from: string, to: string): Node {
  const inGraph = (value: Attribute): Attribute =>
    typeof value === 'object' && isGraph(value)
      ? { ...value, nodes: value.nodes.map((inner) => reading(inner, from, to)) }
      : value;
  return {
    ...node,
    inputs: node.inputs.map((name) => (name === from ? to : name)),
    attributes: new Map([...node.attributes].map(([key, value]) => [key, inGraph(value)])),
  };
}
