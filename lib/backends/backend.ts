import type { Program } from '../model/program.js';
import type { AuditLines } from '../skip/observer.js';
import type { ResolvedPolicy } from '../skip/resolve.js';
import type { TensorData } from '../tensor.js';

export { BlockMode, type ResolvedPolicy } from '../skip/resolve.js';

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
  /**
   * For a profile: items x work x [begin, end] in microseconds of a steady clock, where `work` is that of
   * `CompiledProgram.profiled`. Filled by the run; zeros for what did not run.
   */
  readonly times?: Float64Array | undefined;
}

/** A program made ready to run. Immutable and shared: any number of runs may be under way at once. */
export interface CompiledProgram {
  /** The value that each piece of work computes, -1 for none; missing where runs can't be profiled. */
  readonly profiled?: Int32Array;
  /** Resolves when outputs and trace are filled; rejects with a ResidualSkipError. */
  run(request: RunRequest): Promise<void>;
  runSync(request: RunRequest): void;
  /** Frees what the program holds once the runs under way have ended. Idempotent. */
  release(): void;
}

export interface Backend {
  readonly name: 'native' | 'reference';
  /** Instruction set in use; 'js' for the reference. */
  readonly isa: string;
  /** Workers in use. */
  readonly threads: number;
  /** Doesn't hold the calling thread for long. The program's constants must not change before it settles, nor later. */
  compile(program: Program): Promise<CompiledProgram>;
  compileSync(program: Program): CompiledProgram;
  /**
   * Frees the arrays of a compiled program's large constants where the backend has copies of its own. They are empty
   * then; compiled again, here and while the first is held, the program and ones grown from it work as before.
   */
  dropConstants(program: Program): void;
  /** Encodes lines of the audit log between runs, where that is better than to do it on the calling thread. */
  readonly auditLines?: AuditLines | undefined;
  /** Frees what all programs share (packed weights, workers). Idempotent. */
  release(): void;
}
