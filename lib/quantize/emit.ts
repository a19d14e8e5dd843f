/** Writes a quantised network: QuantizeLinear and DequantizeLinear around float operators, which any runtime understands. */
import type { ModelProto, NodeProto } from '../model/read/proto.js';
import { type Network, rename, tensorProto } from './network.js';
import type { Plan } from './plan.js';
import type { Quantisation } from './range.js';
import { biasScales, type IntegerWeights, integerBias } from './weights.js';

export interface LayerNumbers {
  readonly weights: IntegerWeights;
  readonly bias: Float32Array | undefined;
}

/**
 * @param quantisations by group of the plan
 * @param numbers by layer of the plan
 */
export function emit(
  float: Network,
  { layers, groups, floatSums }: Plan,
  quantisations: readonly Quantisation[],
  numbers: readonly LayerNumbers[],
): ModelProto {
  const network = float.copy();
  // The copy has its nodes in the same order.
  const ownNode = new Map(float.nodes.map((node, i) => [node, network.nodes[i]!]));
  const quantisationOf = new Map(
    groups.flatMap((names, g) => names.map((name) => [name, quantisations[g]!])),
  );
  const added = new Map<NodeProto | undefined, NodeProto[]>();
  const add = (after: NodeProto | undefined, ...nodes: NodeProto[]) =>
    added.set(after, [...(added.get(after) ?? []), ...nodes]);

  for (const [i, { node, weights, axis }] of layers.entries()) {
    const own = ownNode.get(node)!;
    const [input, weightName] = own.input as [string, string];
    const { weights: integers, bias } = numbers[i]!;
    const base = network.unusedName(`${weightName}_int8`);
    const dequantised = addDequantised(network, base, integers.values, weights.dims, integers.scales, axis);
    const nodes = [dequantised];
    own.input = [input, dequantised.output![0]!];
    if (bias) {
      const scales = biasScales(quantisationOf.get(input)!, integers.scales);
      const values = integerBias(bias, scales);
      const of = addDequantised(
        network,
        network.unusedName(`${weightName}_bias_int32`),
        values,
        [bias.length],
        scales,
        0,
      );
      nodes.push(of);
      own.input.push(of.output![0]!);
    }
    add(undefined, ...nodes);
  }
  const readInFloat = new Map([...floatSums].map(([sum, names]) => [ownNode.get(sum)!, names]));
  for (const [name, quantisation] of quantisationOf) {
    const readers = network.consumers(name).filter((reader) => !readInFloat.get(reader)?.includes(name));
    add(network.producer(name), ...throughBytes(network, name, readers, quantisation));
  }
  network.nodes = [
    ...(added.get(undefined) ?? []),
    ...network.nodes.flatMap((node) => [node, ...(added.get(node) ?? [])]),
  ];
  network.index();
  return network.build();
}

/** Has readers of a value read it through bytes, and returns the nodes that make these. */
function throughBytes(
  network: Network,
  name: string,
  readers: readonly NodeProto[],
  { scale, zero }: Quantisation,
): NodeProto[] {
  const own = network.unusedName(`${name}_uint8`);
  const [scaleName, zeroName, back] = [`${own}_scale`, `${own}_zero`, `${own}_float`];
  network.setTensor(tensorProto(scaleName, Float32Array.of(scale)));
  network.setTensor(tensorProto(zeroName, Uint8Array.of(zero)));
  for (const reader of readers) rename(reader, name, back);
  const node = (opType: string, input: string, output: string) => ({
    ...{ name: `${own}_${opType}`, opType },
    ...{ input: [input, scaleName, zeroName], output: [output] },
  });
  return [node('QuantizeLinear', name, own), node('DequantizeLinear', own, back)];
}

/** Adds integers with a scale for each channel along `axis`, and returns the node that makes them numbers. */
function addDequantised(
  network: Network,
  name: string,
  values: Int8Array | Int32Array,
  dims: readonly number[],
  scales: Float32Array,
  axis: number,
): NodeProto {
  network.setTensor(tensorProto(name, values, dims));
  network.setTensor(tensorProto(`${name}_scale`, scales, [scales.length]));
  network.setTensor(
    tensorProto(
      `${name}_zero`,
      values instanceof Int8Array ? new Int8Array(scales.length) : new Int32Array(scales.length),
      [scales.length],
    ),
  );
  return {
    name: `${name}_DequantizeLinear`,
    opType: 'DequantizeLinear',
    input: [name, `${name}_scale`, `${name}_zero`],
    output: [`${name}_float`],
    attribute: [{ name: 'axis', type: 2, i: axis }],
  };
}
