import type { WeightFile } from '../../tensor/recall.js';
import type { TensorData, ValueType } from '../../tensor/tensor.js';
import type { ModelLocation } from './file.js';
import type { FirstLayer } from './first-layer.js';
import type { Graph, ModelPort, Stage } from './graph.js';
import type { ModelMetadata } from './metadata.js';

/** An input of the model that a program is specialised on. */
export interface ModelInput extends ModelPort {
  /** Axis 0 is the batch: each item has its own slice. Always false when the batch runs as a whole. */
  readonly batched: boolean;
  /**
   * The elements, not only the shape, decide the program (the target of a Reshape, the bounds of a Slice
   * or Clip): a program is specialised on their values.
   */
  readonly boundByValue: boolean;
}

export interface ModelOutput extends ModelPort {
  /** Axis 0 is the batch: each item has its own slice. Always false when the batch runs as a whole. */
  readonly batched: boolean;
}

/** What is known of a model, apart from its graph. */
export interface ModelFacts {
  /** Hex SHA-256 of the model file's bytes, and of those of its external files behind them. It may be computed, from the file, when it is first read. */
  readonly sha256: string;
  /** The same; what must be computed is computed in turns with the event loop. */
  identify(): Promise<string>;
  /** Where it was read from; absent if it was given as bytes. */
  readonly location?: ModelLocation;
  /** Files with weights of it, as it names them: paths in its folder. */
  readonly external: readonly string[];
  readonly opset: number;
  readonly metadata: ModelMetadata;
  readonly inputs: readonly ModelInput[];
  readonly outputs: readonly ModelOutput[];
  /** `whole` when the graph mixes the items of a batch; `batchingReason` then names the node. */
  readonly batching: 'item' | 'whole';
  readonly batchingReason?: string;
  /**
   * The graph is lowered for so many items, of which one is cut out; absent when it can be lowered for one: its batch is fixed, or
   * a batch of one is a special case in it.
   */
  readonly loweredItems?: number;
  /** Number of elements in all initialisers. */
  readonly parameters: number;
  /** What it expects of pixels, if that is known. */
  readonly firstLayer?: FirstLayer | undefined;
}

/** A decoded model, independent of concrete shapes. Immutable; shared by all programs made from it. */
export interface Model extends ModelFacts {
  /** Up to the first length that depends on the elements of an input; `graph.outputs` are then what the stages read. */
  readonly graph: Graph;
  /** By the paths of `external`. */
  readonly externalFiles: ReadonlyMap<string, WeightFile>;
  /** Whether different weights have bytes of these files in common. */
  readonly externalOverlap: boolean;
  /** What follows, in order; see `splitGraph`. */
  readonly stages?: readonly Stage[];
}

/** What a program is specialised on, for one input. */
export interface InputBinding {
  /** Concrete shape. Axis 0 of a batched input is 1. */
  readonly shape: readonly number[];
  /** Of an input whose type the file doesn't say. */
  readonly dtype?: ValueType;
  /** Required where `boundByValue`. */
  readonly data?: TensorData;
}
/** By input name. */
export type Binding = ReadonlyMap<string, InputBinding>;
