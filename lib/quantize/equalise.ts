/**
 * Cross-layer equalisation (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction): the
 * channels between two layers are scaled up to similar ranges, so that one scale fits them all, and the second layer's weights
 * are scaled down. The network computes the same.
 */
import type { NodeProto } from '../model/read/proto.js';
import { type Network, tensorProto, type Weights } from './network.js';
import type { Observed } from './observe.js';
import type { Layer } from './plan.js';
import { eachWeight } from './weights.js';

/** Two layers, and the value that the second one reads. */
export interface Pair {
  readonly first: Layer;
  readonly second: Layer;
  readonly between: string;
  /** What is larger is cut off between them. */
  readonly cut: number;
}

/** A channel that is nearly always zero would get weights without bounds. */
const MAX_FACTOR = 64;

/** Neighbouring layers with nothing but a function between them that a positive factor commutes with. */
export function pairsOf(network: Network, layers: readonly Layer[]): Pair[] {
  const layerOf = new Map(layers.map((layer) => [layer.node, layer]));
  return layers.flatMap((first) => {
    if (first.node.opType === 'MatMul') return [];
    let between = first.node.output![0]!;
    let next = network.onlyConsumer(between);
    const cut = next ? cutOf(network, next) : undefined;
    if (next && cut !== undefined) {
      between = next.output![0]!;
      next = network.onlyConsumer(between);
    }
    const second = next && layerOf.get(next);
    const alone = ({ node }: Layer) =>
      node.input!.slice(1).every((name) => network.consumers(name).length === 1);
    if (!second || second.node.opType !== first.node.opType || second.node.input![0] !== between) return [];
    if (!alone(first) || !alone(second)) return [];
    return [{ first, second, between, cut: cut ?? Number.POSITIVE_INFINITY }];
  });
}

/** What a Relu or Clip at zero cuts off above; undefined for other nodes. */
function cutOf(network: Network, { opType, input = [] }: NodeProto): number | undefined {
  if (opType === 'Relu') return Number.POSITIVE_INFINITY;
  if (opType !== 'Clip' || network.weights(input[1])?.data[0] !== 0) return undefined;
  return network.weights(input[2])?.data[0];
}

/** Changes the weights of the pairs in `network`. */
export function equalise(
  network: Network,
  pairs: readonly Pair[],
  observed: ReadonlyMap<string, Observed>,
): void {
  for (const { first, second, between, cut } of pairs) {
    const { largest } = observed.get(between)!;
    const max = Math.min(cut, Math.max(...largest));
    const byChannel = second.weights.dims[1] === 1 && second.weights.dims[0] === largest.length;
    // Weights of a depthwise layer have a scale for each channel, so that scaling costs them nothing.
    const power = byChannel ? 1 : 0.5;
    const factors = largest.map((own) =>
      Math.min(MAX_FACTOR, Math.max(1, max / Math.max(own, max / MAX_FACTOR)) ** power),
    );
    const own = weightsOf(network, first);
    const next = weightsOf(network, second);
    eachWeight(first, (i, output) => {
      own.data[i]! *= factors[output]!;
    });
    eachWeight(second, (i, _, input) => {
      next.data[i]! /= factors[input]!;
    });
    const bias = first.bias?.map((value, c) => value * factors[c]!);
    network.setTensor(tensorProto(first.node.input![1]!, own.data, own.dims));
    network.setTensor(tensorProto(second.node.input![1]!, next.data, next.dims));
    if (bias) network.setTensor(tensorProto(first.node.input![2]!, bias, [bias.length]));
  }
}

/** A copy of the weights as they are now: a layer may be the second of one pair and the first of the next. */
function weightsOf(network: Network, { node }: Layer): Weights {
  const { dims, data } = network.weights(node.input![1]!)!;
  return { dims, data: data.slice() };
}
