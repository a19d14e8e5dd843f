import type { Dimension, ModelPort } from '../model/graph.js';
import type { CompareKind, GateForm, Program, ShortcutKind } from '../model/program.js';
import type { DataType } from '../tensor.js';

/** An input or output, in onnxruntime's form. A symbolic dimension is given by its name. */
export interface TensorMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: DataType;
  readonly shape: readonly Dimension[];
}

/** One residual block. */
export interface BlockInfo {
  readonly index: number;
  readonly name: string;
  readonly shortcut: ShortcutKind;
  /** True when the block can be left out: its shortcut is the identity. */
  readonly skippable: boolean;
  /** The learned gate: the block runs when `score <compare> threshold`. */
  readonly gate: {
    readonly form: GateForm;
    readonly compare: Exclude<CompareKind, 'eq'>;
    readonly threshold: number;
  } | null;
  /** Of one item. */
  readonly multiplyAdds: number;
  /** `multiplyAdds` as a fraction of the whole network's, 0 to 1. */
  readonly share: number;
  /** Convolutions and fully connected layers. */
  readonly layers: number;
}

export interface ModelInfo {
  /** Hex SHA-256 of the model file. */
  readonly sha256: string;
  readonly opset: number;
  /** Number of elements in all initialisers. */
  readonly parameters: number;
  /** Of one item, of the shape run last; null while that is open. */
  readonly multiplyAdds: number | null;
  /** `whole` when the graph mixes the items of a batch, so that a batch runs as one item. */
  readonly batching: 'item' | 'whole';
  /** What mixes the items; null for `item`. */
  readonly batchingReason: string | null;
}

export function describePort({ name, dtype, shape }: ModelPort): TensorMetadata {
  return { name, isTensor: true, type: dtype, shape: [...shape] };
}

export function describeBlocks({ blocks, cost }: Program): readonly BlockInfo[] {
  return blocks.map((block, index) => ({
    index,
    name: block.name,
    shortcut: block.shortcut,
    skippable: block.skippable,
    gate: block.gate
      ? { form: block.gate.form, compare: block.gate.compare, threshold: block.gate.threshold }
      : null,
    multiplyAdds: block.cost.multiplyAdds,
    share: cost.multiplyAdds > 0 ? block.cost.multiplyAdds / cost.multiplyAdds : 0,
    layers: block.cost.layers,
  }));
}
