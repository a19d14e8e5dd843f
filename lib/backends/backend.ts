import type { Program } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { type Decisions, decisionsIn } from '../skip/compiled-policy.js';
import type { AuditLines } from '../skip/observer.js';
import { allocate, type TensorData } from '../tensor/tensor.js';

export { BlockMode, type Decisions, decisionsIn } from '../skip/compiled-policy.js';

export interface RunRequest {
  /** Number of items (1 for a program of batching 'whole'). */
  readonly items: number;
  /** One array per program input, in order; a batched one holds `items` slices one after another. */
  readonly inputs: readonly TensorData[];
  /** One array per program output, in order, laid out like inputs; filled by the run. */
  readonly outputs: readonly TensorData[];
  readonly policy: Decisions;
  /**
   * items x decisions, row-major; of a block 1 if it ran, 0 if it was skipped; of an exit 1 if it was taken. The decisions of a
   * program are its blocks', then its exits'. Filled by the run.
   */
  readonly outcomes: Uint8Array;
  /** items x decisions, row-major; the score of the gate or exit, NaN if it was not evaluated. Filled by the run. */
  readonly scores: Float32Array;
  readonly signal?: AbortSignal;
  /**
   * For a profile: items x work x [begin, end] in microseconds of a steady clock, where `work` is that of
   * `CompiledProgram.profiled`. Filled by the run; zeros for what did not run.
   */
  readonly times?: Float64Array | undefined;
  /**
   * Of each item, `CompiledProgram.stateBytes` zeros or what an earlier run of the same item left there, or undefined. An item that an exit stops
   * leaves there where it stopped; a later run goes on from there if its policy leads there and further. Results and records are
   * those of a run from the beginning.
   */
  readonly states?: readonly (Uint8Array | undefined)[] | undefined;
}

/** What a run of some items fills. */
export function requestFor(program: Program, items: number, policy: Decisions): Omit<RunRequest, 'inputs'> {
  const { outputs, values } = program;
  const decisions = items * decisionsIn(program);
  return {
    ...{ items, policy },
    outputs: outputs.map(({ value }) => allocate(values[value]!.dtype, items * sizeOf(values[value]!.shape))),
    outcomes: new Uint8Array(decisions),
    scores: new Float32Array(decisions).fill(Number.NaN),
  };
}

/** A program ready to run. Immutable and shared: any number of runs may be in progress at once. */
export interface CompiledProgram {
  /** The value that each piece of work computes, -1 for none; undefined if runs can't be profiled. */
  readonly profiled?: Int32Array;
  /** Of `RunRequest.states`; 0 or undefined where no item can go on. */
  readonly stateBytes?: number;
  /** Resolves when outputs and trace are filled; rejects with a ResidualSkipError. */
  run(request: RunRequest): Promise<void>;
  runSync(request: RunRequest): void;
  /** Frees what the program holds once the runs in progress have ended. Idempotent. */
  release(): void;
}

export type OnPacked = (done: number, total: number) => void;

export interface Backend {
  readonly name: 'native' | 'reference';
  /** Instruction set in use; 'js' for the reference. */
  readonly isa: string;
  /** Workers in use. */
  readonly threads: number;
  /**
   * Doesn't block the calling thread for long. The program's constants must never change, even after the promise has
   * settled.
   * @param onPacked called with weights that are packed and all of them, where that takes time; it must not throw
   */
  compile(program: Program, onPacked?: OnPacked): Promise<CompiledProgram>;
  compileSync(program: Program): CompiledProgram;
  /**
   * Frees the arrays of a compiled program's large constants if the backend has its own copies. The arrays are then
   * empty. The program, and programs grown from it, still compile on this backend while the first is held.
   */
  dropConstants(program: Program): void;
  /**
   * Gives back the memory of a compiled program's constants that can be read again (lib/tensor/recall.ts), where the backend has its own
   * copies. Other programs with these constants still compile.
   */
  forgetConstants?(program: Program): void;
  /** Encodes lines of the audit log between runs; undefined where the calling thread does this better. */
  readonly auditLines?: AuditLines | undefined;
  /** Frees what all programs share (packed weights, workers). Idempotent. */
  release(): void;
}
