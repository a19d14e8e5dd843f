/** Why a block ran or was skipped. */
export type SkipReason =
  /** The model's or the policy's gate decided by its score. */
  | 'gate'
  /** The policy says always run or always skip. */
  | 'policy'
  /** The block has no identity shortcut or no gate, and so always runs. */
  | 'fixed';

export interface BlockDecision {
  readonly block: string;
  readonly index: number;
  readonly ran: boolean;
  /** The gate's score; null when no gate was asked. */
  readonly score: number | null;
  /** The threshold that the score was compared with; null when no gate was asked. */
  readonly threshold: number | null;
  readonly reason: SkipReason;
}

/** What one item did. */
export interface ItemTrace {
  readonly blocks: readonly BlockDecision[];
  /** Multiply-adds of the blocks that were skipped. */
  readonly multiplyAddsSkipped: number;
  /** Convolutions and fully connected layers in the blocks that were skipped. */
  readonly layersSkipped: number;
}

/** What every item of one run did. */
export interface SkipTrace {
  readonly items: readonly ItemTrace[];
  /** Multiply-adds of one item in full. */
  readonly multiplyAdds: number;
}
