import { recalled } from '../../tensor/recall.js';
import type { Constant, Graph, Node } from './graph.js';

/** The convolution that a network of images begins with, and what it knows of the pixels that it was trained on. All are copies. */
export interface FirstLayer {
  /** Of filters, [filters, channels, height, width]. */
  readonly weights: Float32Array;
  readonly shape: readonly [filters: number, channels: number, height: number, width: number];
  /** Of each filter, what its sum was on average in training; where `variance` is absent, that is a guess from the bias. */
  readonly mean: Float64Array;
  /** Of each filter's sum in training. Absent where the normalisation is folded into the layer. */
  readonly variance?: Float64Array;
}

/** Of images. */
const MAX_CHANNELS = 4;
/** What changes no element. */
const COPIES: ReadonlySet<string> = new Set(['Identity', 'Cast']);
/** Names that PyTorch's and TensorFlow's exporters give to the weights that a normalisation was folded into. */
const FOLDED = /^onnx::Conv_\d+$|fused_bn/;

/**
 * The first convolution of a graph that keeps statistics of its input: a batch normalisation in front of it or behind it, or one
 * that an exporter folded into it. Then the bias is beta - gamma * mean / deviation for weights of gamma / deviation, and beta is
 * noise around 0.
 * @returns undefined where the graph begins in another way
 */
export function firstLayerOf(graph: Graph): FirstLayer | undefined {
  const [input] = graph.inputs;
  if (!input) return undefined;
  let value = input.name;
  let user = soleUser(graph, value);
  while (user && COPIES.has(user.op)) {
    value = user.outputs[0]!;
    user = soleUser(graph, value);
  }
  if (user?.op === 'BatchNormalization') {
    const found = statisticsOf(graph, user);
    return found && found.mean.length <= MAX_CHANNELS
      ? { ...found, ...identity(found.mean.length) }
      : undefined;
  }
  const filters = user?.op === 'Conv' && filtersOf(graph.constants.get(user.inputs[1]!));
  if (!user || !filters || (user.attributes.get('group') ?? 1) !== 1) return undefined;
  const [count] = filters.shape;
  const bias = numbersOf(graph, user.inputs[2]);
  const next = soleUser(graph, user.outputs[0]!);
  if (next?.op === 'BatchNormalization') {
    const found = statisticsOf(graph, next);
    const mean = found?.mean.map((one, c) => one - (bias?.[c] ?? 0));
    return found && mean?.length === count ? { ...found, ...filters, mean } : undefined;
  }
  if (bias?.length !== count || !FOLDED.test(user.inputs[1]!)) return undefined;
  return { ...filters, mean: bias.map((one) => -one) };
}

function soleUser({ nodes, outputs }: Graph, value: string): Node | undefined {
  // An absent value has no name.
  const users = value === '' ? [] : nodes.filter(({ inputs }) => inputs.includes(value));
  return users.length === 1 && outputs.every(({ name }) => name !== value) ? users[0] : undefined;
}

type Filters = Pick<FirstLayer, 'weights' | 'shape'>;

function filtersOf(constant: Constant | undefined): Filters | undefined {
  if (!(constant?.data instanceof Float32Array) || constant.shape.length !== 4) return undefined;
  // Other weights may be large, and are read nowhere else.
  if (constant.shape[1]! > MAX_CHANNELS) return undefined;
  return { weights: recalled(constant.data).slice(), shape: constant.shape as FirstLayer['shape'] };
}

function statisticsOf(
  graph: Graph,
  { inputs, attributes }: Node,
): Omit<FirstLayer, keyof Filters> | undefined {
  const [mean, variance] = [numbersOf(graph, inputs[3]), numbersOf(graph, inputs[4])];
  const epsilon = Number(attributes.get('epsilon') ?? 1e-5);
  if (!mean || mean.length !== variance?.length) return undefined;
  return { mean, variance: variance.map((one) => one + epsilon) };
}

function numbersOf({ constants }: Graph, name: string | undefined): Float64Array | undefined {
  const data = constants.get(name ?? '')?.data;
  return data instanceof Float32Array ? Float64Array.from(recalled(data)) : undefined;
}

/** A layer that hands each channel on. */
function identity(channels: number): Filters {
  const weights = Float32Array.from({ length: channels ** 2 }, (_, i) => Number(i % (channels + 1) === 0));
  return { weights, shape: [channels, channels, 1, 1] };
}
