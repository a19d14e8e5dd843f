import { ERROR_CODES, type ErrorCode, ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import type { TensorData } from '../tensor.js';
import type { Backend, CompiledProgram, RunRequest } from './backend.js';
import { loadBinding } from './binding.cjs';
import { encodeProgram } from './encode.js';

export interface NativeOptions {
  /** Worker threads; as many as the process's CPU affinity and quota allow when left out. */
  readonly threads?: number;
  /** The instruction set to use; the best of this CPU when left out. */
  readonly isa?: 'scalar' | 'avx2' | 'avx512' | 'neon';
}

export interface NativeInfo {
  /** Instruction sets that can run here, weakest first. */
  readonly isas: string[];
  readonly best: string;
  /** Threads that the process's CPU affinity and quota allow. */
  readonly threads: number;
  /** Fused multiply-adds that one core reaches with `isa`, in GFLOP/s, measured on the spot in some milliseconds. */
  peakGflops(isa: string): number;
}

/** What native/addon exports. Its errors have a `code` of lib/errors.ts. */
interface NativeBinding {
  readonly Engine: new (threads: number, isa: string) => NativeEngine;
  /** Detaches a buffer, which frees its memory now rather than when garbage is collected. */
  discard(buffer: ArrayBuffer): void;
  info(): NativeInfo;
}
type CompileArguments = [words: Int32Array, constants: readonly TensorData[], ids: Int32Array];
interface NativeEngine {
  readonly isa: string;
  readonly threads: number;
  compile(...args: CompileArguments): Promise<NativeProgram>;
  compileSync(...args: CompileArguments): NativeProgram;
  release(): void;
}
/** `arrays` holds inputs, outputs, ran, scores and, for `run`, a flag that aborts the run when it isn't 0. */
type RunArguments = [
  items: number,
  arrays: readonly TensorData[],
  inputs: number,
  outputs: number,
  modes: Uint8Array,
  thresholds: Float32Array,
];
interface NativeProgram {
  run(...args: RunArguments): Promise<void>;
  runSync(...args: RunArguments): void;
  release(): void;
}

function binding(): NativeBinding {
  const loaded = loadBinding();
  if ('problem' in loaded) {
    throw new ResidualSkipError('NATIVE_UNAVAILABLE', loaded.problem, { cause: loaded.cause });
  }
  return loaded.exports as NativeBinding;
}

/** An error of the addon as one of this package's. Its class may be that of another context, so its code tells. */
function translate(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return error;
  const { code, message } = error as { code?: unknown; message?: unknown };
  return ERROR_CODES.includes(code as ErrorCode)
    ? new ResidualSkipError(code as ErrorCode, String(message))
    : error;
}

function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw translate(error);
  }
}

/** Throws NATIVE_UNAVAILABLE. */
export function nativeInfo(): NativeInfo {
  const { peakGflops, ...info } = binding().info();
  return { ...info, peakGflops: (isa) => guarded(() => peakGflops(isa)) };
}

/** Smaller constants are not worth dropping. */
const DROPPED_BYTES = 1 << 12;

function compileArguments(program: Program): CompileArguments {
  const { words, constants, ids } = encodeProgram(program);
  return [words, constants, ids];
}

/** Programs run in C++, on worker threads of the backend's own. All of its programs share packed weights. */
export class NativeBackend implements Backend {
  readonly name = 'native';
  private readonly engine: NativeEngine;
  /** Whether the process may use a core that no worker needs. */
  private readonly spareCore: boolean;

  /** Throws NATIVE_UNAVAILABLE, ISA_UNAVAILABLE when this machine can't run `isa`, OUT_OF_MEMORY. */
  constructor({ threads = 0, isa = undefined }: NativeOptions = {}) {
    const { Engine, info } = binding();
    this.engine = guarded(() => new Engine(threads, isa ?? ''));
    this.spareCore = this.engine.threads < info().threads;
  }

  /** The instruction set in use. */
  get isa(): string {
    return this.engine.isa;
  }

  get threads(): number {
    return this.engine.threads;
  }

  async compile(program: Program): Promise<CompiledProgram> {
    const args = compileArguments(program);
    try {
      return new CompiledNative(await this.engine.compile(...args), this.spareCore);
    } catch (error) {
      throw translate(error);
    }
  }

  compileSync(program: Program): CompiledProgram {
    const args = compileArguments(program);
    return new CompiledNative(
      guarded(() => this.engine.compileSync(...args)),
      this.spareCore,
    );
  }

  dropConstants(program: Program): void {
    const { discard } = binding();
    for (const { data } of program.values) {
      if (data && data.byteLength >= DROPPED_BYTES) discard(data.buffer as ArrayBuffer);
    }
  }

  /** Runs under way end first. */
  release(): void {
    this.engine.release();
  }
}

/** A run as short as this notices how long it takes to wake the event loop. */
const SHORT_RUN_MS = 2;

class CompiledNative implements CompiledProgram {
  private underway = 0;
  private turning = false;
  private lastRunMs = Number.POSITIVE_INFINITY;

  constructor(
    private readonly program: NativeProgram,
    private readonly spareCore: boolean,
  ) {}

  /** The buffers of the request must not be transferred or resized before the promise settles. */
  async run(request: RunRequest): Promise<void> {
    const { signal } = request;
    if (!signal) return this.start(request, []);
    if (signal.aborted) throw aborted(signal);
    const flag = new Int32Array(1);
    const abort = () => {
      flag[0] = 1;
    };
    signal.addEventListener('abort', abort, { once: true });
    try {
      await this.start(request, [flag]);
    } catch (error) {
      throw signal.aborted ? aborted(signal) : error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  runSync(request: RunRequest): void {
    if (request.signal?.aborted) throw aborted(request.signal);
    guarded(() => this.program.runSync(...runArguments(request, [])));
  }

  release(): void {
    this.program.release();
  }

  private async start(request: RunRequest, flag: readonly Int32Array[]): Promise<void> {
    const began = performance.now();
    this.underway++;
    try {
      const ended = this.program.run(...runArguments(request, flag));
      if (this.spareCore && this.lastRunMs < SHORT_RUN_MS) this.keepTurning(began + SHORT_RUN_MS);
      await ended;
    } catch (error) {
      throw translate(error);
    } finally {
      this.underway--;
      this.lastRunMs = performance.now() - began;
    }
  }

  /**
   * Lets the event loop turn, serving whatever comes, instead of sleeping until the run ends: waking it up takes as
   * long as some layers of a small network. For a short time, and only where a core is free for it.
   */
  private keepTurning(until: number): void {
    if (this.turning) return;
    this.turning = true;
    const turn = () => {
      this.turning = this.underway > 0 && performance.now() < until;
      if (this.turning) setImmediate(turn);
    };
    setImmediate(turn);
  }
}

function aborted(signal: AbortSignal): ResidualSkipError {
  return new ResidualSkipError('ABORTED', 'The run was aborted by its signal.', { cause: signal.reason });
}

function runArguments(request: RunRequest, flag: readonly Int32Array[]): RunArguments {
  const { items, inputs, outputs, policy, ran, scores } = request;
  const arrays = [...inputs, ...outputs, ran, scores, ...flag];
  for (const { buffer } of arrays) {
    // A buffer that shrinks takes its memory away from under the run. Shared ones only grow.
    if ((buffer as { readonly resizable?: boolean }).resizable) {
      throw new ResidualSkipError('INVALID_ARGUMENT', 'Tensors on resizable buffers are not supported.');
    }
  }
  return [items, arrays, inputs.length, outputs.length, policy.modes, policy.thresholds];
}
