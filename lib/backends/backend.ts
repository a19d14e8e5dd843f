import type { Program } from '../model/program.js';
import type { TensorData } from '../tensor.js';

/** What is done with one block. Values are part of the native ABI. */
export const BlockMode = { run: 0, skip: 1, gate: 2 } as const;

/** A policy resolved against one program: entry i is for block i. */
export interface ResolvedPolicy {
  /** BlockMode of every block. `skip` only for skippable blocks, `gate` only for blocks with a gate. */
  readonly modes: Uint8Array;
  /** Threshold of every block; read where the mode is `gate`. The comparison is the gate's own. */
  readonly thresholds: Float32Array;
}

export interface RunRequest {
  /** Number of items (1 for a program of batching 'whole'). */
  readonly items: number;
  /** One array per program input, in order; a batched one holds `items` slices one after another. */
  readonly inputs: readonly TensorData[];
  /** One array per program output, in order, likewise; filled by the run. */
  readonly outputs: readonly TensorData[];
  readonly policy: ResolvedPolicy;
  /** items x blocks, row-major; 1 where the block ran, 0 where it was skipped. Filled by the run. */
  readonly ran: Uint8Array;
  /** items x blocks, row-major; the gate's score, NaN where no gate was asked. Filled by the run. */
  readonly scores: Float32Array;
  readonly signal?: AbortSignal;
}

/** A program made ready to run. Immutable and shared: any number of runs may be under way at once. */
export interface CompiledProgram {
  /** Resolves when outputs and trace are filled; rejects with a ResidualSkipError. */
  run(request: RunRequest): Promise<void>;
  runSync(request: RunRequest): void;
  /** Frees what the program holds once the runs under way have ended. Idempotent. */
  release(): void;
}

export interface Backend {
  readonly name: 'native' | 'reference';
  compile(program: Program): CompiledProgram;
  /** Frees what all programs share (packed weights, workers). Idempotent. */
  release(): void;
}
