/** What of a network is quantised: layers with their inputs, sums, and what lies between. */

import type { NodeProto } from '../model/read/proto.js';
import { append } from '../util/maps.js';
import { attributeOf, intOf, type Network, type Weights } from './network.js';

/** A convolution or fully connected layer. */
export interface Layer {
  readonly node: NodeProto;
  readonly weights: Weights;
  /** Axis of the weights that counts the output channels. */
  readonly axis: number;
  readonly bias: Float32Array | undefined;
}

/** Type and shape of a value, for one image. */
export interface ValueShape {
  readonly type: string;
  readonly dims: readonly number[];
}
export type Shapes = ReadonlyMap<string, ValueShape>;

export interface Plan {
  readonly layers: readonly Layer[];
  /** The values that are quantised; those of one array share scale and zero point. */
  readonly groups: readonly (readonly string[])[];
  /** Sums that are computed in float, with the values that they read before these are quantised. */
  readonly floatSums: ReadonlyMap<NodeProto, readonly string[]>;
}

/** They move elements, and so keep their quantisation. */
const MOVES = new Set([
  'MaxPool',
  'Reshape',
  'Flatten',
  'Transpose',
  'Slice',
  'Squeeze',
  'Unsqueeze',
  'Pad',
  'Concat',
  'Split',
]);
/** They are computed with the layer before them. */
const FUSED = new Set(['Relu', 'Clip']);
const POOLS = new Set(['GlobalAveragePool', 'AveragePool', 'ReduceMean']);
/** Functions of one number: a table of 256 values. */
const FUNCTIONS = new Set([
  'Sigmoid',
  'HardSigmoid',
  'HardSwish',
  'LeakyRelu',
  'Tanh',
  'Elu',
  'Gelu',
  'Mish',
  'Softplus',
]);

/** The layers of a network that can be quantised, in its order. */
export function layersOf(network: Network): Layer[] {
  return network.nodes.flatMap((node) => {
    const found = layerOf(network, node);
    return found ? [found] : [];
  });
}

function layerOf(network: Network, node: NodeProto): Layer | undefined {
  const [, weightName, biasName] = node.input ?? [];
  const kind = node.opType ?? '';
  if (!['Conv', 'Gemm', 'MatMul'].includes(kind)) return undefined;
  const weights = network.weights(weightName);
  if (!weights || network.isConstant(node.input![0]!)) return undefined;
  const { dims } = weights;
  if (kind === 'MatMul') return dims.length === 2 ? { node, weights, axis: 1, bias: undefined } : undefined;
  const scaled = ['alpha', 'beta'].some((name) => (attributeOf(node, name)?.f ?? 1) !== 1);
  if (kind === 'Gemm' && (scaled || intOf(node, 'transA', 0) !== 0)) return undefined;
  const axis = kind === 'Gemm' && intOf(node, 'transB', 0) === 0 ? 1 : 0;
  const bias = biasName ? network.weights(biasName)?.data : undefined;
  if (biasName && bias?.length !== dims[axis]) return undefined;
  return { node, weights, axis, bias };
}

/**
 * @param streams values of the residual stream before and after a block that can be skipped: they share scale and zero point,
 * so that skipping it is no work
 * @param inFloat layers that stay in float
 */
export function planOf(
  network: Network,
  shapes: Shapes,
  streams: readonly (readonly [string, string])[],
  inFloat: ReadonlySet<NodeProto>,
): Plan {
  const heads = decisionHeads(network, shapes);
  const layers = layersOf(network).filter(({ node }) => !inFloat.has(node) && !heads.has(node));
  const grouping = new Grouping(network, shapes, layers);
  return { layers, groups: grouping.groups(streams), floatSums: grouping.floatSums() };
}

const sizeOf = (shape: ValueShape | undefined) => shape?.dims.reduce((a, b) => a * b, 1) ?? 0;

const COMPARES = new Set(['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Equal', 'ArgMax']);

/**
 * The heads of gates and exits: what computes one vector for each image that a comparison depends on. They are small, and a
 * rounding error in them could change what an item runs.
 */
export function decisionHeads(network: Network, shapes: Shapes): Set<NodeProto> {
  const isVector = (name: string) =>
    (shapes.get(name)?.dims ?? []).slice(1).filter((length) => length > 1).length <= 1;
  const heads = new Set<NodeProto>();
  const visit = (node: NodeProto) => {
    for (const name of node.input ?? []) {
      const source = network.producer(name);
      if (!source || heads.has(source) || !source.output!.every(isVector)) continue;
      heads.add(source);
      visit(source);
    }
  };
  for (const node of network.nodes) if (COMPARES.has(node.opType ?? '')) visit(node);
  return heads;
}

class Grouping {
  /** Of each quantised value, another one of its group; itself for the group's first. */
  readonly #parents = new Map<string, string>();
  readonly #layers: ReadonlySet<NodeProto>;

  constructor(
    private readonly network: Network,
    private readonly shapes: Shapes,
    layers: readonly Layer[],
  ) {
    this.#layers = new Set(layers.map(({ node }) => node));
    for (const { node } of layers) this.#want(node.input![0]!);
    // A sum or a pool is one of integers if what it reads is quantised.
    for (const node of network.nodes) {
      const kind = node.opType ?? '';
      if (kind === 'Add' && this.#isStream(node)) for (const name of this.#operands(node)) this.#want(name);
      if ((POOLS.has(kind) || kind === 'MaxPool') && this.#isInteger(node.input![0]!))
        this.#want(node.input![0]!);
      if (FUNCTIONS.has(kind) && this.#fromLayer(node.input![0]!)) this.#want(node.input![0]!);
      if (kind === 'Mul' && this.#isScaling(node)) for (const name of node.input!) this.#want(name);
    }
  }

  groups(streams: readonly (readonly [string, string])[]): string[][] {
    for (const [before, after] of streams)
      if (this.#parents.has(before) && this.#parents.has(after)) this.#unite(before, after);
    const groups = new Map<string, string[]>();
    for (const name of this.#parents.keys()) append(groups, this.#root(name), name);
    return [...groups.values()];
  }

  /** In most transformers, sums of the residual stream; only what the layers read is quantised there. */
  floatSums(): Map<NodeProto, string[]> {
    const sums = new Map<NodeProto, string[]>();
    for (const node of this.network.nodes) {
      if (node.opType !== 'Add' || this.#isStream(node)) continue;
      for (const name of node.input!)
        if (this.#parents.has(name) && !this.#givesBytes(name)) append(sums, node, name);
    }
    return sums;
  }

  #want(name: string): void {
    if (this.#parents.has(name) || this.shapes.get(name)?.type !== 'float32') return;
    this.#parents.set(name, name);
    const node = this.network.producer(name);
    if (!node || !MOVES.has(node.opType ?? '')) return;
    const moved = node.opType === 'Concat' ? node.input! : node.input!.slice(0, 1);
    for (const from of moved) {
      this.#want(from);
      if (this.#parents.has(from)) this.#unite(from, name);
    }
  }

  #root(name: string): string {
    const parent = this.#parents.get(name)!;
    return parent === name ? name : this.#root(parent);
  }

  #unite(a: string, b: string): void {
    this.#parents.set(this.#root(b), this.#root(a));
  }

  /** Whether a sum of images goes on to something that reads integers. */
  #isStream(sum: NodeProto): boolean {
    const shape = this.shapes.get(sum.output![0]!);
    const same = sum.input!.every((name) => sizeOf(this.shapes.get(name)) === sizeOf(shape));
    return (
      same && this.#operands(sum).some((name) => this.#isInteger(name)) && this.#reachesLayer(sum.output![0]!)
    );
  }

  #reachesLayer(name: string): boolean {
    if (this.#parents.has(name)) return true;
    return this.network.consumers(name).some((node) => {
      const kind = node.opType ?? '';
      if (POOLS.has(kind) || this.#layers.has(node)) return true;
      return (FUSED.has(kind) || MOVES.has(kind)) && this.#reachesLayer(node.output![0]!);
    });
  }

  /** Whether what computes a value can do so in integers. */
  #isInteger(name: string): boolean {
    return this.#parents.has(name) || this.#isComputed(name, (kind) => FUSED.has(kind) || MOVES.has(kind));
  }

  /** Whether a value is computed in integers once all that was chosen is quantised. */
  #givesBytes(name: string): boolean {
    return this.#isComputed(name, (kind, node) =>
      kind === 'Mul' ? this.#isScaling(node) : [FUSED, MOVES, POOLS, FUNCTIONS].some((all) => all.has(kind)),
    );
  }

  /** @param passes whether a node gives integers if it reads them */
  #isComputed(name: string, passes: (kind: string, node: NodeProto) => boolean): boolean {
    const node = this.network.producer(name);
    if (!node) return false;
    if (this.#layers.has(node)) return true;
    const kind = node.opType ?? '';
    if (kind === 'Add') return node.input!.every((input) => this.#isInteger(input) || this.#isGated(input));
    return passes(kind, node) && this.#isInteger(node.input![0]!);
  }

  #isGated(name: string): boolean {
    const node = this.network.producer(name);
    return node !== undefined && gatedOperand(node, this.shapes) !== undefined;
  }

  #fromLayer(name: string): boolean {
    const node = this.network.producer(name);
    return node !== undefined && this.#layers.has(node);
  }

  /** The operands of a sum; for the product of a gate and a body, the body. */
  #operands(sum: NodeProto): string[] {
    return sum.input!.map((name) => {
      const node = this.network.producer(name);
      return (node && gatedOperand(node, this.shapes)) ?? name;
    });
  }

  /** An image times a factor for each channel (Hu et al. 2018). */
  #isScaling(product: NodeProto): boolean {
    const [large, small] = product
      .input!.map((name) => this.shapes.get(name))
      .sort((a, b) => sizeOf(b) - sizeOf(a));
    if (large?.dims.length !== 4 || small?.dims.length !== 4) return false;
    const channels = large.dims[1]!;
    return channels > 1 && sizeOf(small) === channels && small.dims[1] === channels;
  }
}

/** The body in the product of a body and a gate, which is one number. */
function gatedOperand(product: NodeProto, shapes: Shapes): string | undefined {
  if (product.opType !== 'Mul') return undefined;
  const [a, b] = product.input as [string, string];
  const [sizeA, sizeB] = [sizeOf(shapes.get(a)), sizeOf(shapes.get(b))];
  if (sizeA === 1 && sizeB > 1) return b;
  return sizeB === 1 && sizeA > 1 ? a : undefined;
}
