/**
 * Stable error codes. A code never changes its meaning; messages may become better.
 */
export const ERROR_CODES = [
  /** An argument or option of a call is missing, misspelt or of the wrong type. */
  'INVALID_ARGUMENT',
  /** A tensor's shape does not fit what the model or the call asks for. */
  'INVALID_SHAPE',
  /** A tensor's element type does not fit. */
  'INVALID_DTYPE',
  /** There is no model of this path. */
  'MODEL_NOT_FOUND',
  /** A file is there, but can't be read: no permission, too many open files, or a failing disk. */
  'READ_FAILED',
  /** The bytes are not an ONNX model. */
  'MODEL_CORRUPT',
  /** The model decodes, but contradicts itself or the ONNX specification. */
  'MODEL_INVALID',
  /** The model uses operators, attributes or types that are not implemented; all are listed. */
  'UNSUPPORTED_MODEL',
  /** External tensor data is missing, too short, or outside the model's folder. */
  'EXTERNAL_DATA',
  /** A policy is malformed or names a block that the model doesn't have. */
  'INVALID_POLICY',
  /** A policy was made for another model (SHA-256 differs). */
  'POLICY_MISMATCH',
  /** An image or data file can't be decoded. */
  'INVALID_DATA',
  /** An optional dependency is not installed. */
  'MISSING_DEPENDENCY',
  /** The native addon can't be loaded here. */
  'NATIVE_UNAVAILABLE',
  /** The asked instruction set is not available here. */
  'ISA_UNAVAILABLE',
  /** The session was released. */
  'SESSION_RELEASED',
  /** The run was aborted by its signal. */
  'ABORTED',
  /** Memory for the run could not be had. */
  'OUT_OF_MEMORY',
  /** The disk is full or failing, so that a result could not be written. */
  'WRITE_FAILED',
  /** A server refused a request for now, because too many wait; try again later. */
  'BUSY',
  /** A server can't be reached, is shutting down, or hasn't loaded the model. */
  'UNAVAILABLE',
  /** A defect of this package: an internal invariant was violated. */
  'INTERNAL',
] as const;

/** One of `ERROR_CODES`. */
export type ErrorCode = (typeof ERROR_CODES)[number];

const FAILURES_OF_DISKS = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EIO', 'EROFS']);

/**
 * The code for a file that can't be written: the disk is at fault, or the path.
 * @internal
 */
export function codeOfWriting(cause: unknown): Extract<ErrorCode, 'WRITE_FAILED' | 'INVALID_ARGUMENT'> {
  const { code = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  return FAILURES_OF_DISKS.has(code) ? 'WRITE_FAILED' : 'INVALID_ARGUMENT';
}

const FAILURES_OF_READING = new Set([
  'EACCES',
  'EPERM',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'EIO',
  'EBUSY',
  'ESTALE',
]);

/** The code for a file that can't be read: the machine is at fault, or, by `otherwise`, the path. */
export function codeOfReading<T extends ErrorCode>(cause: unknown, otherwise: T): T | 'READ_FAILED' {
  const { code = '' } = (cause ?? {}) as NodeJS.ErrnoException;
  return FAILURES_OF_READING.has(code) ? 'READ_FAILED' : otherwise;
}

/** The one error class of this package: `code` is stable, `message` names the thing and the way out. */
export class ResidualSkipError extends Error {
  /** `AbortError` for the code ABORTED, which is what code that handles aborts looks for. */
  override readonly name: 'ResidualSkipError' | 'AbortError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.name = code === 'ABORTED' ? 'AbortError' : 'ResidualSkipError';
  }

  /** For JSON.stringify, which leaves out the message of an error. */
  toJSON(): { name: string; code: ErrorCode; message: string } {
    const { name, code, message } = this;
    return { name, code, message };
  }
}
