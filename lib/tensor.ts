import { ResidualSkipError } from './errors.js';

/** Element types that tensors of this package can have; names are onnxruntime's. */
export type DataType = 'float32' | 'uint8' | 'int32' | 'int64' | 'bool';

export interface TypedArrayOf {
  float32: Float32Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
}

/** The array that holds the elements of a tensor of type `T`. */
export type TensorData<T extends DataType = DataType> = TypedArrayOf[T];
