/** Weights of a few bits each, packed into bytes, as onnxruntime's tools write those of language models. */
import { sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { part } from './layout.js';
import { NO_INPUT, type OperatorTable } from './operator.js';
import { dequantizedBy, spread } from './quantization.js';

/** Blocks of weights have a scale each; they are widened to floats. */
function matMulNBits(node: NodeLowering): ValueId {
  const packed = node.constant(node.input(1), 'weight');
  const [depth, columns, block, bits] = [
    node.number('K', 0),
    node.number('N', 0),
    node.number('block_size', 0),
    node.number('bits', 4),
  ];
  const scales = node.constant(node.float(2), 'scale').data as Float32Array;
  const count = Math.ceil(depth / block);
  const bytes = (block * bits) / 8;
  const fits =
    [depth, columns, block].every((n) => Number.isInteger(n) && n > 0) &&
    [2, 4, 8].includes(bits) &&
    Number.isInteger(bytes);
  if (
    !fits ||
    packed.dtype !== 'uint8' ||
    packed.data.length !== columns * count * bytes ||
    scales.length !== columns * count
  ) {
    node.invalid(
      `its weight [${packed.shape}] or scale doesn't fit ${columns} columns of ${depth} numbers of ${bits} bits in blocks of ${block}`,
    );
  }
  if (node.optional(4) !== NONE) node.unsupported('g_idx is not supported');
  const zeroId = node.optional(3);
  const zeros = zeroId === NONE ? undefined : node.constant(zeroId, 'zero point');
  const zeroBytes = Math.ceil((count * bits) / 8);
  const expected = zeros?.dtype === 'float32' ? columns * count : columns * zeroBytes;
  if (zeros && (zeros.data.length !== expected || (zeros.dtype !== 'uint8' && zeros.dtype !== 'float32'))) {
    node.invalid(
      `its zero point ${zeros.dtype}[${zeros.shape}] doesn't fit ${columns} columns of ${count} blocks`,
    );
  }
  node.afford('float32', depth * columns);
  const key = `matMulNBits ${depth} ${columns} ${block} ${bits}`;
  const inputs = [packed.data, scales, ...(zeros ? [zeros.data] : [])];
  const [weight] = node.context.cache.memoise(
    () => key,
    inputs,
    () => {
      const bitsAt = (data: ArrayLike<number>, at: number, row: number) =>
        (data[row + Math.floor((at * bits) / 8)]! >> ((at * bits) % 8)) & (2 ** bits - 1);
      const zeroAt = (n: number, b: number): number => {
        if (!zeros) return 2 ** (bits - 1);
        const data = zeros.data as Uint8Array | Float32Array;
        return zeros.dtype === 'float32' ? data[n * count + b]! : bitsAt(data, b, n * zeroBytes);
      };
      const wide = new Float32Array(columns * depth);
      for (let n = 0; n < columns; n++) {
        for (let k = 0; k < depth; k++) {
          const b = Math.floor(k / block);
          const q = bitsAt(packed.data as Uint8Array, k - b * block, (n * count + b) * bytes);
          wide[n * depth + k] = (q - zeroAt(n, b)) * scales[n * count + b]!;
        }
      }
      return [wide];
    },
  );
  return layer(node, node.constantOf('float32', [columns, depth], weight!), 5);
}

/** The product of the first input and a matrix (columns, depth), and a bias. */
function layer(node: NodeLowering, matrix: ValueId, at: number): ValueId {
  const a = node.float(0);
  const [columns, depth] = node.shape(matrix) as [number, number];
  const rows = sizeOf(node.shape(a).slice(0, -1));
  if (node.shape(a).at(-1) !== depth) node.invalid(`its input [${node.shape(a)}] doesn't end with ${depth}`);
  const flat = node.reshape(a, [rows, depth]);
  const bias = node.optional(at) === NONE ? NONE : node.float(at);
  if (bias !== NONE && (node.rank(bias) !== 1 || node.shape(bias)[0] !== columns))
    node.invalid(`its bias [${node.shape(bias)}] doesn't fit ${columns} columns`);
  const y = node.step(
    'gemm',
    [flat, matrix, bias, NONE],
    { dtype: 'float32', shape: [rows, columns] },
    { transB: true, act: NO_ACTIVATION },
  );
  return node.reshape(y, [...node.shape(a).slice(0, -1), columns]);
}

/** Values that 4 bits stand for: floats with an exponent of 2 bits, and quantiles of the normal distribution (Dettmers et al. 2023). */
const FP4 = [0, 0.005208333333, 2 / 3, 1, 1 / 3, 0.5, 1 / 6, 0.25];
const CODES: readonly (readonly number[])[] = [
  [...FP4, ...FP4.map((value) => -value)],
  [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ],
];

/** Codes of 4 bits, two in a byte, and for each block the largest magnitude. */
function matMulBnb4(node: NodeLowering): ValueId {
  const packed = node.constant(node.input(1), 'weight');
  const largest = node.constant(node.float(2), 'absmax').data as Float32Array;
  const [depth, columns, block] = [node.number('K', 0), node.number('N', 0), node.number('block_size', 0)];
  const code = CODES[node.number('quant_type', -1)] ?? node.invalid('its quant_type is neither 0 nor 1');
  const count = depth * columns;
  const fits = [depth, columns, block].every((n) => Number.isInteger(n) && n > 0);
  const whole = packed.data.length === Math.ceil(count / 2) && largest.length === Math.ceil(count / block);
  if (!fits || packed.dtype !== 'uint8' || !whole)
    node.invalid(
      `its weight [${packed.shape}] or absmax doesn't fit ${columns} columns of ${depth} numbers in blocks of ${block}`,
    );
  node.afford('float32', count);
  const key = `matMulBnb4 ${depth} ${columns} ${block} ${code[0]}`;
  const [weight] = node.context.cache.memoise(
    () => key,
    [packed.data, largest],
    () => {
      const bytes = packed.data as Uint8Array;
      const at = (i: number) => (i % 2 === 0 ? bytes[i >> 1]! >> 4 : bytes[i >> 1]! & 15);
      return [Float32Array.from({ length: count }, (_, i) => code[at(i)]! * largest[Math.floor(i / block)]!)];
    },
  );
  return layer(node, node.constantOf('float32', [columns, depth], weight!), NO_INPUT);
}

/** Rows of a table whose blocks have a scale and a zero point each. */
function gatherBlockQuantized(node: NodeLowering): ValueId {
  const bits = node.number('bits', 4);
  /** Two numbers in each byte, the lower half first. */
  const unpacked = (id: ValueId, length?: number): ValueId => {
    const { dtype, shape, data, bits: width } = node.constant(id, 'data');
    if (dtype !== 'uint8' || width === 4 || bits === 8) return id;
    node.afford('uint8', 2 * data.length);
    const [wide] = node.context.cache.memoise(
      () => 'halves',
      [data],
      () => [
        Uint8Array.from(
          { length: 2 * data.length },
          (_, i) => ((data as Uint8Array)[i >> 1]! >> (4 * (i & 1))) & 15,
        ),
      ],
    );
    const last = shape.length - 1;
    const apart = node.constantOf('uint8', shape.with(last, shape[last]! * 2), wide!);
    return length === undefined ? apart : part(node, apart, last, 0, length);
  };
  if (bits !== 4 && bits !== 8) node.unsupported(`its numbers have ${bits} bits; only 4 and 8 are supported`);
  const given = node.value(node.input(0));
  const data = unpacked(node.input(0));
  const shape = node.shape(data);
  const axis = node.axis(node.number('quantize_axis', 1), shape.length);
  const block = node.number('block_size', 128);
  if (!(Number.isInteger(block) && block > 0)) node.invalid(`its block_size ${block} is no length`);
  const scales = node.float(2);
  const spreadOut = (id: ValueId) => spread(node, id, shape, axis, block);
  const implied = given.dtype === 'uint8' && given.bits !== 4 ? 2 ** (bits - 1) : 0;
  const zero =
    node.optional(3) === NONE
      ? node.scalar(implied)
      : spreadOut(unpacked(node.input(3), node.shape(scales).at(-1)!));
  const table = dequantizedBy(node, data, spreadOut(scales), zero);
  const along = node.axis(node.number('gather_axis', 0), shape.length);
  const indices = node.input(1);
  const output = [...shape.slice(0, along), ...node.shape(indices), ...shape.slice(along + 1)];
  return node.step('gather', [table, indices], { dtype: 'float32', shape: output }, { axis: along });
}

export const PACKED_WEIGHTS: OperatorTable = {
  'com.microsoft.GatherBlockQuantized': { lower: gatherBlockQuantized, constantInputs: [0, 3] },
  'com.microsoft.MatMulBnb4': {
    lower: matMulBnb4,
    constantInputs: [1, 2],
    unsupported: ({ attributes }) => (attributes.get('transB') === 0 ? 'with transB 0' : undefined),
  },
  'com.microsoft.MatMulNBits': { lower: matMulNBits, constantInputs: [1, 2, 3] },
};
