/** What is computed before a network is quantised: batch normalisation becomes a part of the convolution before it. */
import type { NodeProto } from '../model/read/proto.js';
import { attributeOf, type Network, tensorProto } from './network.js';
import type { Shapes } from './plan.js';

const EPSILON = 1e-5;

/** Removes casts of float32 to float32, which some exporters write before a mean. */
export function dropCasts(network: Network, shapes: Shapes): void {
  if (!network.isFloat32) return;
  const isFloat = (name: string) => shapes.get(name)?.type === 'float32';
  for (const node of [...network.nodes]) {
    const [from, to] = [node.input?.[0] ?? '', node.output?.[0] ?? ''];
    const idle = node.opType === 'Cast' && isFloat(from) && isFloat(to) && !network.outputs.includes(to);
    if (idle) network.bypass(node);
  }
}

/** Folds every BatchNormalization that only a convolution feeds; removes Identity and Dropout. */
export function simplify(network: Network): void {
  for (const node of [...network.nodes]) {
    const passes = node.opType === 'Identity' || (node.opType === 'Dropout' && node.output?.length === 1);
    const [from, to] = [node.input?.[0] ?? '', node.output?.[0] ?? ''];
    if (passes && !network.outputs.includes(to) && !network.isConstant(from)) network.bypass(node);
  }
  for (const node of [...network.nodes]) {
    if (node.opType !== 'BatchNormalization' || (node.output?.length ?? 0) !== 1) continue;
    const conv = network.producer(node.input![0]!);
    if (conv?.opType === 'Conv' && network.onlyConsumer(conv.output![0]!) === node) fold(network, conv, node);
  }
}

/** Ioffe and Szegedy 2015: y = (x - mean) / sqrt(variance + epsilon) * scale + shift. */
function fold(network: Network, conv: NodeProto, normalization: NodeProto): void {
  const [, weightName = '', biasName] = conv.input!;
  const [, ...names] = normalization.input!;
  const weight = network.weights(weightName);
  const [scale, shift, mean, variance] = names.map((name) => network.weights(name)?.data);
  if (!weight || !scale || !shift || !mean || !variance) return;
  const bias = biasName ? network.weights(biasName)?.data : new Float32Array(scale.length);
  if (!bias) return;
  const epsilon = attributeOf(normalization, 'epsilon')?.f ?? EPSILON;
  const factor = variance.map((value, c) => scale[c]! / Math.sqrt(value + epsilon));
  const size = weight.data.length / factor.length;
  const folded = weight.data.map((value, i) => value * factor[Math.floor(i / size)]!);
  const shifted = bias.map((value, c) => (value - mean[c]!) * factor[c]! + shift[c]!);
  const own = network.unusedName(`${weightName}_folded`);
  const ownBias = network.unusedName(`${weightName}_bias`);
  network.setTensor(tensorProto(own, folded, weight.dims));
  network.setTensor(tensorProto(ownBias, shifted, [shifted.length]));
  conv.input = [conv.input![0]!, own, ownBias];
  const [result] = normalization.output!;
  network.nodes = network.nodes.filter((each) => each !== normalization);
  conv.output = [result!];
  network.index();
}
