/** Small quantised models to mutate, in the forms that quantisers write. */
import { ELEMENT_TYPE, GraphBuilder, modelBytes, tensor } from '../helpers/onnx-builder.js';

const CHANNELS = 4;
const fill = (count: number, at: (i: number) => number) => Array.from({ length: count }, (_, i) => at(i));
const scalar = (value: number) => tensor(Float32Array.of(value), []);
const scales = (count: number) => tensor(Float32Array.from(fill(count, (i) => 0.01 + 0.002 * i)));
const signed = (...shape: number[]) => {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(Int8Array.from(fill(count, (i) => ((i * 37) % 255) - 127)), shape);
};
const unsigned = (...shape: number[]) => {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(Uint8Array.from(fill(count, (i) => (i * 37) % 256)), shape);
};
const byte = (value: number, type: 'uint8' | 'int8') =>
  tensor(type === 'int8' ? Int8Array.of(value) : Uint8Array.of(value), [], type);

/** A tensor rounded to bytes, as a float again. */
function rounded(g: GraphBuilder, x: string, type: 'uint8' | 'int8'): string {
  const scaling = [g.constant(scalar(0.02)), g.constant(byte(type === 'int8' ? -7 : 121, type))];
  return g.node('DequantizeLinear', [g.node('QuantizeLinear', [x, ...scaling]), ...scaling]);
}

/** A residual block between bytes, weights with a scale for each channel. */
function qdq(type: 'uint8' | 'int8'): Uint8Array {
  const g = new GraphBuilder();
  const layer = (x: string): string => {
    const weight = [signed(CHANNELS, CHANNELS, 3, 3), scales(CHANNELS), tensor(new Int8Array(CHANNELS))];
    const bias = [tensor(Int32Array.from(fill(CHANNELS, (i) => 90 * i - 100))), scales(CHANNELS)];
    const operands = [weight, bias].map((parts) =>
      g.node(
        'DequantizeLinear',
        parts.map((part) => g.constant(part)),
        { axis: 0 },
      ),
    );
    return g.node('Conv', [x, ...operands], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  };
  const x = rounded(g, g.input('x', ['batch', CHANNELS, 6, 6]), type);
  const body = rounded(g, layer(rounded(g, g.node('Relu', [layer(x)]), type)), type);
  const sum = rounded(g, g.node('Relu', [g.node('Add', [x, body])]), type);
  const pool = g.node('MaxPool', [sum], { kernel_shape: [2, 2], strides: [2, 2] });
  g.output(rounded(g, g.node('Sigmoid', [rounded(g, pool, type)]), type));
  return modelBytes(g);
}

/** Operators on bytes. */
function operators(): Uint8Array {
  const g = new GraphBuilder();
  const scaling = () => [g.constant(scalar(0.02)), g.constant(byte(121, 'uint8'))];
  const quantised = (x: string) => [x, ...scaling()];
  const domain = 'com.microsoft';
  const contrib = (op: string, inputs: string[], attributes = {}) =>
    g.nodes(op, inputs, attributes, { domain })[0]!;
  const x = g.node('QuantizeLinear', [g.input('x', [1, CHANNELS, 4, 4]), ...scaling()]);
  const weight = [signed(CHANNELS, CHANNELS, 1, 1), scales(CHANNELS), tensor(new Int8Array(CHANNELS))];
  const bias = g.constant(tensor(Int32Array.from(fill(CHANNELS, (i) => 9 * i))));
  const conv = g.node('QLinearConv', [
    ...quantised(x),
    ...weight.map((part) => g.constant(part)),
    ...scaling(),
    bias,
  ]);
  const sum = contrib('QLinearAdd', [...quantised(conv), ...quantised(x), ...scaling()]);
  const both = contrib('QLinearConcat', [...scaling(), ...quantised(sum), ...quantised(conv)], { axis: 1 });
  const mean = contrib('QLinearGlobalAveragePool', [...quantised(both), ...scaling()]);
  const flat = g.node('Flatten', [contrib('QLinearSigmoid', [...quantised(mean), ...scaling()])]);
  const matrix = [unsigned(2 * CHANNELS, 5), scalar(0.01), byte(128, 'uint8')].map((part) =>
    g.constant(part),
  );
  const y = g.node('QLinearMatMul', [...quantised(flat), ...matrix, ...scaling()]);
  g.output(g.node('DequantizeLinear', quantised(y)));
  return modelBytes(g);
}

/** Ranges of the run; weights by column. */
function dynamic(): Uint8Array {
  const g = new GraphBuilder();
  const outputs = ['bytes', 'scale', 'zero'];
  g.nodes('DynamicQuantizeLinear', [g.input('x', ['batch', 6])], {}, { name: 'range', outputs });
  const weight = [unsigned(6, 5), unsigned(5)].map((part) => g.constant(part));
  const sums = g.node('MatMulInteger', ['bytes', weight[0]!, 'zero', weight[1]!]);
  const real = g.node('Cast', [sums], { to: ELEMENT_TYPE.float32 });
  const scaled = g.node('Mul', [real, g.node('Mul', ['scale', g.constant(scales(5))])]);
  g.output(g.node('Relu', [g.node('Add', [scaled, g.constant(scales(5))])]));
  return modelBytes(g);
}

/** Weights in blocks, of four bits and of eight. */
function blocks(): Uint8Array {
  const g = new GraphBuilder();
  const packed = [unsigned(5, 2, 8), scales(10)].map((part) => g.constant(part));
  const attributes = { K: 32, N: 5, block_size: 16, bits: 4 };
  const domain = 'com.microsoft';
  const [y] = g.nodes('MatMulNBits', [g.input('x', ['batch', 32]), ...packed], attributes, { domain });
  const parts = [signed(6, 5), tensor(Float32Array.from(fill(15, (i) => 0.01 + 0.001 * i)), [3, 5])];
  const weight = g.node(
    'DequantizeLinear',
    parts.map((part) => g.constant(part)),
    { axis: 0, block_size: 2 },
  );
  g.output(g.node('MatMul', [y!, g.node('Transpose', [weight])]));
  return modelBytes(g, 21);
}

export const QUANTISED: readonly Uint8Array[] = [qdq('uint8'), qdq('int8'), operators(), dynamic(), blocks()];
