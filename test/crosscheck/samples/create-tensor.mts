// Tensors of every type that both have, from typed arrays and from lists.
import { Tensor, type TypedTensor } from 'onnxruntime-node';

const floats: TypedTensor<'float32'> = new Tensor('float32', [1.5, 2.5, -3], [3]);
const inferred: TypedTensor<'float32'> = new Tensor(new Float32Array(6), [1, 2, 3]);
const flat: TypedTensor<'int32'> = new Tensor('int32', new Int32Array([7, 8, 9]));
const bytes: TypedTensor<'uint8'> = new Tensor('uint8', new Uint8ClampedArray([1, 2, 3, 4]), [2, 2]);
const integers: TypedTensor<'int64'> = new Tensor('int64', [1n, -2n, 2n ** 40n], [3, 1]);
const fromNumbers: TypedTensor<'int64'> = new Tensor('int64', [1, 2], [2]);
const booleans: TypedTensor<'bool'> = new Tensor([true, false, true], [3]);
const scalar: TypedTensor<'float32'> = new Tensor('float32', [42], []);
const empty = new Tensor('float32', new Float32Array(0), [0, 4]);

const all: Tensor[] = [floats, inferred, flat, bytes, integers, fromNumbers, booleans, scalar, empty];
const shown = all.map(({ type, dims, size, location, data }) => ({
  type,
  dims,
  size,
  location,
  data: Array.from(data as ArrayLike<number | bigint>, String),
}));
console.log(JSON.stringify(shown));
