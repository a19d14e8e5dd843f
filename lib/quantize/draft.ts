/** One float network, and the quantised ones that choices give. */
import { ResidualSkipError } from '../errors.js';
import type { ModelProto, NodeProto } from '../model/read/proto.js';
import { emit } from './emit.js';
import { equalise, pairsOf } from './equalise.js';
import { Histogram } from './histogram.js';
import type { Network } from './network.js';
import type { Observed } from './observe.js';
import { layersOf, type Plan, planOf, type Shapes } from './plan.js';
import { type Quantisation, quantisationOf, type RangeMethod } from './range.js';
import { correctedBias, integerWeights } from './weights.js';

/** What can be chosen for a whole network. */
export interface Choices {
  readonly range: RangeMethod;
  /** Whether biases make up for the rounding of weights. */
  readonly biasCorrected: boolean;
  readonly equalised: boolean;
  /** Indices of further layers that stay in float. */
  readonly inFloat: readonly number[];
}

/** Records what the network computes on images: the distribution of these values, by the axis of their channels. */
export type Observe = (
  network: Network,
  channelAxes: ReadonlyMap<string, number>,
) => Promise<Map<string, Observed>>;

interface Variant {
  readonly network: Network;
  readonly observed: ReadonlyMap<string, Observed>;
}

export class Draft {
  readonly #named: ReadonlySet<NodeProto>;
  readonly #variants = new Map<boolean, Promise<Variant>>();

  /**
   * @param streams see planOf
   * @param named layers that stay in float, by name
   * @throws ResidualSkipError INVALID_ARGUMENT for an unknown name, UNSUPPORTED_MODEL when no layer can be quantised
   */
  constructor(
    private readonly network: Network,
    private readonly shapes: Shapes,
    private readonly streams: readonly (readonly [string, string])[],
    named: readonly string[],
    private readonly observe: Observe,
  ) {
    const layers = layersOf(network).map(({ node }) => node);
    this.#named = new Set(
      named.map((name) => {
        const found = layers.find((node) => node.name === name);
        if (found) return found;
        const known = layers.map((node) => node.name).join(', ');
        throw new ResidualSkipError(
          'INVALID_ARGUMENT',
          `float: '${name}' is not a layer; the layers are ${known}`,
        );
      }),
    );
    if (this.plan([]).layers.length > 0) return;
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'model: it has no convolution or fully connected layer with constant weights outside its gates, so there is nothing to quantise',
    );
  }

  /** @param inFloat indices among the layers that can be quantised */
  plan(inFloat: readonly number[], network = this.network): Plan {
    const all = network.nodes;
    const stay = new Set([...this.#named].map((node) => all[this.network.nodes.indexOf(node)]!));
    const { layers } = planOf(network, this.shapes, this.streams, stay);
    for (const index of inFloat) stay.add(layers.at(index)!.node);
    return planOf(network, this.shapes, this.streams, stay);
  }

  async build({ range, biasCorrected, equalised, inFloat }: Choices): Promise<ModelProto> {
    const { network, observed } = await this.#variant(equalised);
    const plan = this.plan(inFloat, network);
    const quantisations = plan.groups.map((names) => quantisationOf(merged(names, observed), range));
    const of = new Map<string, Quantisation>();
    for (const [g, names] of plan.groups.entries()) for (const name of names) of.set(name, quantisations[g]!);
    const numbers = plan.layers.map((layer) => {
      const input = layer.node.input![0]!;
      const weights = integerWeights(layer, of.get(input)!);
      const correct = biasCorrected && layer.node.opType !== 'MatMul';
      return {
        weights,
        bias: correct ? correctedBias(layer, weights, observed.get(input)!.means) : layer.bias,
      };
    });
    return emit(network, plan, quantisations, numbers);
  }

  /** Number of pairs of layers that can be equalised. */
  get pairs(): number {
    return pairsOf(this.network, this.plan([]).layers).length;
  }

  #variant(equalised: boolean): Promise<Variant> {
    const made =
      this.#variants.get(equalised) ?? (equalised ? this.#equalised() : this.#observed(this.network));
    this.#variants.set(equalised, made);
    return made;
  }

  async #observed(network: Network): Promise<Variant> {
    const { layers, groups } = this.plan([], network);
    const lastAxis = new Set(
      layers.filter(({ node }) => node.opType === 'MatMul').map(({ node }) => node.input![0]),
    );
    const axes = new Map(
      groups.flat().map((name) => {
        const rank = this.shapes.get(name)!.dims.length;
        return [name, lastAxis.has(name) ? rank - 1 : Math.min(1, rank - 1)];
      }),
    );
    return { network, observed: await this.observe(network, axes) };
  }

  async #equalised(): Promise<Variant> {
    const { observed } = await this.#variant(false);
    const network = this.network.copy();
    equalise(network, pairsOf(network, this.plan([], network).layers), observed);
    return this.#observed(network);
  }
}

function merged(names: readonly string[], observed: ReadonlyMap<string, Observed>): Histogram {
  const all = new Histogram();
  for (const name of names) all.merge(observed.get(name)!.histogram);
  return all;
}
