import { ResidualSkipError } from '../errors.js';
import { NONE, type OpName, PRECISIONS, type Program } from '../model/program/program.js';
import type { AuditLines } from '../skip/observer.js';
import { forget, recalled, sourceOf, type WeightFile } from '../tensor/recall.js';
import {
  binding,
  type CompileArguments,
  guarded,
  type NativeEngine,
  type NativeProgram,
  type RunArguments,
  translate,
} from './addon.js';
import type { Backend, CompiledProgram, OnPacked, RunRequest } from './backend.js';
import { encodeProgram } from './encode.js';
import { RunQueue } from './run-queue.js';

export interface NativeOptions {
  /** Worker threads; by default as many as the process's CPU affinity and quota allow. */
  readonly threads?: number;
  /** The instruction set to use; by default the best of this CPU. */
  readonly isa?: 'scalar' | 'avx2' | 'avxvnni' | 'avx512' | 'avx512vnni' | 'amx' | 'neon' | 'neondot';
  /** Bytes that runs may take at a time, in addition to weights, inputs and outputs. */
  readonly maxMemory?: number;
}

/** How often packing is asked how far it is. */
const ASKED_EVERY_MS = 50;

/** Smaller constants are not worth dropping. */
const DROPPED_BYTES = 1 << 12;

/** For native code an array without memory is one that is in a file, or that it has packed before. */
const WITHOUT_MEMORY = new Float32Array(1);
structuredClone(WITHOUT_MEMORY.buffer, { transfer: [WITHOUT_MEMORY.buffer] });

/** A file's descriptor means nothing to an addon whose C library is another. */
const READS_FILES = process.platform !== 'win32';

function compileArguments(program: Program, progress?: Int32Array): CompileArguments {
  const { words, constants, ids } = encodeProgram(program);
  if (!READS_FILES) for (const data of constants) recalled(data);
  const places = new Float64Array(2 * constants.length);
  // To ask a file for its descriptor is to look whether it is the same.
  const descriptors = new Map<WeightFile, number>();
  const kept = constants.map((data, i) => {
    const source = sourceOf(data);
    if (!source) {
      places[2 * i] = -1;
      return data;
    }
    const descriptor = descriptors.get(source.file) ?? source.file.descriptor;
    descriptors.set(source.file, descriptor);
    places.set([descriptor, source.offset], 2 * i);
    return WITHOUT_MEMORY;
  });
  return [words, kept, ids, progress, PRECISIONS.indexOf(program.precision ?? 'float32'), places];
}

/**
 * What was read while a program was compiled is what was loaded.
 * @throws ResidualSkipError READ_FAILED
 */
function requireUnchanged({ values }: Program): void {
  const files = new Set(values.map(({ data }) => data && sourceOf(data)?.file));
  for (const file of files) file?.requireSame();
}

/** Which input of these steps is a weight, or a table of which rows are picked. */
const PACKED_OPERANDS: Partial<Record<OpName, number>> = {
  conv: 1,
  gemm: 1,
  matmul: 1,
  qconv: 1,
  qmatmul: 1,
  gather: 0,
};

/** Like translate(), for an error of compiling `program`: replaces numbers of values with their names in the model. */
function named(error: unknown, { values }: Program): unknown {
  const translated = translate(error);
  const { value } = (error ?? {}) as { value?: number };
  if (!(translated instanceof ResidualSkipError) || value === undefined) return translated;
  const message = translated.message.replace(`value ${value}`, `'${values[value]?.name}'`);
  return new ResidualSkipError(translated.code, message);
}

/** Runs programs in C++, on worker threads of its own. All of its programs share packed weights. */
export class NativeBackend implements Backend {
  readonly name = 'native';
  private readonly engine: NativeEngine;
  private readonly queue: RunQueue;
  /** Compilations in progress. */
  private compiling = 0;
  readonly auditLines: AuditLines | undefined;

  /** Throws NATIVE_UNAVAILABLE, ISA_UNAVAILABLE when this machine can't run `isa`, OUT_OF_MEMORY. */
  constructor({ threads = 0, isa = undefined, maxMemory = 0 }: NativeOptions = {}) {
    const { Engine, info } = binding();
    this.engine = guarded(() => new Engine(threads, isa ?? '', maxMemory));
    const spareCore = this.engine.threads < info().threads;
    this.queue = new RunQueue({
      threads: this.engine.threads,
      spareCore,
      awaitEnd: (microseconds) => this.engine.awaitEnd(microseconds),
      expectCaller: (comes) => this.engine.expectCaller(comes),
    });
    // With a spare core, the calling thread encodes while workers run.
    this.auditLines = spareCore ? undefined : (...args) => this.engine.auditLines(...args);
  }

  /** The instruction set in use. */
  get isa(): string {
    return this.engine.isa;
  }

  get threads(): number {
    return this.engine.threads;
  }

  async compile(program: Program, onPacked?: OnPacked): Promise<CompiledProgram> {
    this.compiling++;
    try {
      return await this.compileOnce(program, onPacked);
    } finally {
      this.compiling--;
    }
  }

  private async compileOnce(program: Program, onPacked?: OnPacked): Promise<CompiledProgram> {
    const progress = new Int32Array(2);
    const args = compileArguments(program, progress);
    const report = () => onPacked?.(progress[0]!, progress[1]!);
    const timer = onPacked && setInterval(report, ASKED_EVERY_MS);
    try {
      return new CompiledNative(await this.engine.compile(...args), this.queue);
    } catch (error) {
      throw named(error, program);
    } finally {
      clearInterval(timer);
      report();
      requireUnchanged(program);
    }
  }

  compileSync(program: Program): CompiledProgram {
    try {
      return new CompiledNative(this.engine.compileSync(...compileArguments(program)), this.queue);
    } catch (error) {
      throw named(error, program);
    } finally {
      requireUnchanged(program);
    }
  }

  dropConstants(program: Program): void {
    const { discard } = binding();
    for (const { data } of program.values) {
      if (data && data.byteLength >= DROPPED_BYTES) discard(data.buffer as ArrayBuffer);
    }
  }

  forgetConstants(program: Program): void {
    // Another program may be packing what both have.
    if (this.compiling > 0) return;
    const { forget: free } = binding();
    for (const { op, inputs } of program.steps) {
      const data = program.values[inputs[PACKED_OPERANDS[op] ?? -1] ?? NONE]?.data;
      if (data) forget(data, free);
    }
  }

  /** Runs in progress end first. */
  release(): void {
    this.queue.handOver();
    this.engine.release();
  }
}

class CompiledNative implements CompiledProgram {
  /** Of one item, with every block and no exit; unknown before the first run. */
  private longestMs = Number.POSITIVE_INFINITY;

  constructor(
    private readonly program: NativeProgram,
    private readonly queue: RunQueue,
  ) {}

  get profiled(): Int32Array {
    return this.program.profiled;
  }

  get stateBytes(): number {
    return this.program.stateBytes;
  }

  /** The buffers of the request must not be transferred or resized before the promise settles. */
  run(request: RunRequest): Promise<void> {
    return request.signal ? this.abortable(request, request.signal) : this.queued(request, []);
  }

  runSync(request: RunRequest): void {
    if (request.signal?.aborted) throw aborted(request.signal);
    try {
      this.longestMs = this.program.runSync(...runArguments(request, []));
    } catch (error) {
      throw translate(error);
    }
  }

  release(): void {
    this.queue.handOver();
    this.program.release();
  }

  private async abortable(request: RunRequest, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw aborted(signal);
    const flag = new Int32Array(1);
    const abort = () => {
      flag[0] = 1;
    };
    signal.addEventListener('abort', abort, { once: true });
    try {
      await this.queued(request, [flag]);
    } catch (error) {
      throw signal.aborted ? aborted(signal) : error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** A run with a signal never blocks the event loop: the signal would go unnoticed. */
  private queued(request: RunRequest, flag: readonly Int32Array[]): Promise<void> {
    return this.queue.run({
      longestMs: request.items * this.longestMs,
      mayBeHere: flag.length === 0,
      here: () => this.runSync(request),
      there: () => this.start(request, flag),
    });
  }

  private async start(request: RunRequest, flag: readonly Int32Array[]): Promise<void> {
    try {
      this.longestMs = await this.program.run(...runArguments(request, flag));
    } catch (error) {
      throw translate(error);
    }
  }
}

function aborted(signal: AbortSignal): ResidualSkipError {
  return new ResidualSkipError('ABORTED', 'run: it was aborted by its signal', { cause: signal.reason });
}

function runArguments(request: RunRequest, flag: readonly Int32Array[]): RunArguments {
  const { items, inputs, outputs, policy, outcomes, scores, times, states } = request;
  const arrays = [...inputs, ...outputs, outcomes, scores, ...flag];
  for (const { buffer } of arrays) {
    // A buffer that shrinks would free memory that the run uses. Shared buffers only grow.
    if ((buffer as { readonly resizable?: boolean }).resizable) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        'tensor: its buffer is resizable, which is not supported; use a fixed-length ArrayBuffer',
      );
    }
  }
  return [items, arrays, inputs.length, outputs.length, policy.modes, policy.thresholds, times, states];
}
