/** Weights of a few bits each, packed into bytes, as onnxruntime's tools write those of language models. */
import { sizeOf } from '../../../numeric/shapes.js';
import { NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/** Blocks of weights have a scale each; they are widened to floats. */
function matMulNBits(node: NodeLowering): ValueId {
  const [a, packed] = [node.float(0), node.constant(node.input(1), 'weight')];
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
  const [weight] = node.context.cache.memoise(key, inputs, () => {
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
  });
  const matrix = node.constantOf('float32', [columns, depth], weight!);
  const rows = sizeOf(node.shape(a).slice(0, -1));
  if (node.shape(a).at(-1) !== depth) node.invalid(`its input [${node.shape(a)}] doesn't end with ${depth}`);
  const flat = node.reshape(a, [rows, depth]);
  const bias = node.optional(5) === NONE ? NONE : node.float(5);
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

export const PACKED_WEIGHTS: OperatorTable = {
  'com.microsoft.MatMulNBits': { lower: matMulNBits, constantInputs: [1, 2, 3] },
};
