import type { CompareKind, GateForm, Program, ShortcutKind } from '../model/program/program.js';

/** One residual block. */
export interface BlockInfo {
  /** From 0 at the input; policies may name the block by it. */
  readonly index: number;
  /** As policies and traces name the block. */
  readonly name: string;
  /** Only a block whose shortcut is the identity can be skipped. */
  readonly shortcut: ShortcutKind;
  /** True when the block can be skipped: its shortcut is the identity. */
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
