/** What native/addon exports, and its errors as those of this library. */
import { ERROR_CODES, type ErrorCode, ResidualSkipError } from '../errors.js';
import type { Precision } from '../model/program/program.js';
import type { AuditLines } from '../skip/observer.js';
import type { TensorData } from '../tensor/tensor.js';
import { loadBinding } from '../util/binding.js';

export interface NativeInfo {
  /** Instruction sets that can run here, weakest first. */
  readonly isas: string[];
  readonly best: string;
  /** Threads that the process's CPU affinity and quota allow. */
  readonly threads: number;
  /** The precision that the processor has the fastest products for. */
  readonly fastestPrecision: Precision;
  /** Fused multiply-adds that one core reaches with `isa`, in GFLOP/s, measured within a few milliseconds. */
  peakGflops(isa: string): number;
}

/** The exports of native/addon. Its errors have a `code` of lib/errors.ts. */
interface NativeBinding {
  readonly Engine: new (threads: number, isa: string, maxMemory: number) => NativeEngine;
  /** Detaches a buffer, which frees its memory now rather than when garbage is collected. */
  discard(buffer: ArrayBuffer): void;
  /** Gives the memory of an array's whole pages back, which loses their elements; false where that can't be done. */
  forget(array: TensorData): boolean;
  /** From now on, the C library gives large blocks back to the system as soon as they are freed. */
  returnFreed(): void;
  info(): NativeInfo;
  /** Writes 32 bytes for each message. Undefined if the processor has no instructions for it. */
  sha256?(messages: readonly TensorData[], digests: Uint8Array): void;
  draw(...args: DrawArguments): Promise<boolean>;
  decodeJpeg(...args: JpegArguments): Promise<boolean>;
  /** Undefined if `sha256` is. See native/addon/audit_lines.h. */
  auditLinesSync?(...args: Parameters<AuditLines>): Buffer;
}

/** See native/addon/drawing.h, and lib/data/resample.ts, which computes the same. */
export type DrawArguments = [
  pixels: Uint8Array,
  numbers: Int32Array,
  columnFirsts: Int32Array,
  columnFactors: Int32Array,
  rowFirsts: Int32Array,
  rowFactors: Int32Array,
  tables: Float32Array,
  output: Float32Array,
];

/** See native/image/jpeg.h. Of the result, whether the file was decoded. */
export type JpegArguments = [file: Uint8Array, numbers: Int32Array, pixels: Uint8Array];

export type CompileArguments = [
  words: Int32Array,
  constants: readonly TensorData[],
  ids: Int32Array,
  /** Filled with weights packed and all of them. */
  progress: Int32Array | undefined,
  /** Its index in PRECISIONS. */
  precision: number,
  /** For each constant the descriptor of a file and the offset there, from which one without memory is read; -1 for none. */
  places: Float64Array | undefined,
];

export interface NativeEngine {
  readonly isa: string;
  readonly threads: number;
  compile(...args: CompileArguments): Promise<NativeProgram>;
  compileSync(...args: CompileArguments): NativeProgram;
  auditLines(...args: Parameters<AuditLines>): Promise<Buffer>;
  awaitEnd(microseconds: number): void;
  expectCaller(comes: boolean): void;
  release(): void;
}
/** `arrays` holds inputs, outputs, outcomes, scores and, for `run`, a flag that aborts the run when it isn't 0. */
export type RunArguments = [
  items: number,
  arrays: readonly TensorData[],
  inputs: number,
  outputs: number,
  modes: Uint8Array,
  thresholds: Float32Array,
  times?: Float64Array,
  states?: readonly (Uint8Array | undefined)[],
];
export interface NativeProgram {
  /** Resolves to the milliseconds that an item takes at most, with every block and no exit, as far as runs have shown. */
  run(...args: RunArguments): Promise<number>;
  runSync(...args: RunArguments): number;
  /** The value that each code computes; -1 for none. */
  readonly profiled: Int32Array;
  /** Of each of `states`; 0 without exits. */
  readonly stateBytes: number;
  release(): void;
}

export function binding(): NativeBinding {
  const loaded = loadBinding();
  if ('problem' in loaded) {
    throw new ResidualSkipError('NATIVE_UNAVAILABLE', loaded.problem, { cause: loaded.cause });
  }
  return loaded.exports as NativeBinding;
}

/** An error of the addon as a ResidualSkipError. Its class may belong to another context, so the code identifies it. */
export function translate(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return error;
  const { code, message } = error as { code?: unknown; message?: unknown };
  return ERROR_CODES.includes(code as ErrorCode)
    ? new ResidualSkipError(code as ErrorCode, String(message))
    : error;
}

export function guarded<T>(call: () => T): T {
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

/** SHA-256 of many messages at once, 32 bytes for each; undefined if this machine has no native implementation. */
export function nativeSha256(): ((messages: readonly TensorData[], digests: Uint8Array) => void) | undefined {
  const loaded = loadBinding();
  return 'problem' in loaded ? undefined : (loaded.exports as NativeBinding).sha256;
}

/**
 * Frees an array's memory now rather than when garbage is collected, if it has all of its buffer: the array is empty then. Without native
 * code, nothing happens.
 */
export function discard({ buffer, byteLength }: ArrayBufferView): void {
  const loaded = loadBinding();
  if ('problem' in loaded || byteLength < buffer.byteLength) return;
  (loaded.exports as NativeBinding).discard(buffer as ArrayBuffer);
}

/**
 * For processes that bound their memory: from now on, the C library gives what image decoders free back to the system, where it may otherwise
 * keep up to 64 MiB for each thread. Does nothing without glibc or native code.
 */
export function returnFreedMemory(): void {
  const loaded = loadBinding();
  if (!('problem' in loaded)) (loaded.exports as NativeBinding).returnFreed();
}

/** Draws an image on another thread; undefined without native code. */
export function nativeDrawing(): ((...args: DrawArguments) => Promise<boolean>) | undefined {
  return translated('draw');
}

/** Decodes a JPEG file on another thread; undefined without native code. */
export function nativeJpeg(): ((...args: JpegArguments) => Promise<boolean>) | undefined {
  return translated('decodeJpeg');
}

function translated<K extends 'draw' | 'decodeJpeg'>(name: K) {
  const loaded = loadBinding();
  if ('problem' in loaded) return undefined;
  const call = (loaded.exports as NativeBinding)[name] as (...args: unknown[]) => Promise<boolean>;
  return (...args: Parameters<NativeBinding[K]>) =>
    call(...args).catch((error) => {
      throw translate(error);
    });
}

let auditLinesSync: NativeBinding['auditLinesSync'] | null | undefined;

/** Encodes a batch of items as lines of the audit log; null if this machine has no native encoder. */
export function nativeAuditLines(): ((...args: Parameters<AuditLines>) => Uint8Array) | null {
  if (auditLinesSync === undefined) {
    const loaded = loadBinding();
    auditLinesSync =
      ('problem' in loaded ? undefined : (loaded.exports as NativeBinding).auditLinesSync) ?? null;
  }
  return auditLinesSync;
}
