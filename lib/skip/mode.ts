/** What is done with one block. Values are part of the native ABI. */
export const BlockMode = { run: 0, skip: 1, gate: 2 } as const;

/** A policy resolved against one program: entry i is for block i. */
export interface ResolvedPolicy {
  /** BlockMode of every block. `skip` only for skippable blocks, `gate` only for blocks with a gate. */
  readonly modes: Uint8Array;
  /** Threshold of every block; read where the mode is `gate`. The comparison is the gate's own. */
  readonly thresholds: Float32Array;
}
