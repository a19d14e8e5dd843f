import type { Dimension, ModelPort } from '../model/read/graph.js';
import type { ModelMetadata } from '../model/read/metadata.js';
import type { DataType } from '../tensor/tensor.js';

/** An input or output, in onnxruntime's form. A symbolic dimension is given by its name. */
export interface TensorMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: DataType;
  readonly shape: readonly Dimension[];
}

/** Facts about a model. */
export interface ModelInfo {
  /**
   * Hex SHA-256 of the model file and, behind it, of the files with its external weights. A session without a policy for the model and
   * without observers computes it from the files when it is first read: 0.8 ms for each MB, on the calling thread, unless
   * `session.sha256()` was awaited before. READ_FAILED if they have changed since.
   */
  readonly sha256: string;
  /** Version of ONNX's operator set. */
  readonly opset: number;
  /** What the file's writer says about it. */
  readonly metadata: ModelMetadata;
  /** Number of elements in all initialisers. */
  readonly parameters: number;
  /** Of one item of the shape that ran last; null while the shape is open. */
  readonly multiplyAdds: number | null;
  /** `whole` when the graph mixes the items of a batch: the batch then runs as one item. */
  readonly batching: 'item' | 'whole';
  /** What mixes the items; null for `item`. */
  readonly batchingReason: string | null;
}

export function describePort({ name, dtype, widened, shape }: ModelPort): TensorMetadata {
  return { name, isTensor: true, type: widened ?? dtype, shape: [...shape] };
}
