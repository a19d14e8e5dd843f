import { fileURLToPath } from 'node:url';
import { ResidualSkipError } from '../errors.js';

/** Where a model is loaded from: the path or `file:` URL of its file or folder, or the bytes of its file. */
export type ModelSource = string | URL | Uint8Array | ArrayBufferLike | Blob;

function bytesOf(buffer: ArrayBufferLike, offset?: number, length?: number): Uint8Array {
  try {
    return new Uint8Array(buffer, offset, length);
  } catch (cause) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      "create: the model's buffer was transferred to another thread; pass a copy",
      { cause },
    );
  }
}

/**
 * A path, the bytes that `source` holds, or a Blob, whose bytes must be read asynchronously; INVALID_ARGUMENT for
 * anything else.
 */
export function checkSource(source: unknown): string | Uint8Array | Blob {
  if (source instanceof URL || (typeof source === 'string' && source.startsWith('file:')))
    return pathOf(source);
  if (typeof source === 'string') return source;
  if (source instanceof Blob) return source;
  // Not instanceof: bytes may come from another realm (a vm context, a test runner).
  if (ArrayBuffer.isView(source)) return bytesOf(source.buffer, source.byteOffset, source.byteLength);
  if (isBuffer(source)) return bytesOf(source);
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    'create: expected the path or file: URL of a model, or its bytes in a Buffer, Uint8Array, ArrayBuffer or Blob',
  );
}

/**
 * The arguments of `create`, as in onnxruntime: a source and options, or a buffer, an offset into it, possibly a
 * length, and options.
 * @throws ResidualSkipError INVALID_ARGUMENT for an offset or length that does not fit
 */
export function parseSourceArguments(
  source: unknown,
  [first, second, third]: readonly unknown[],
): { readonly bytes: unknown; readonly options: unknown } {
  if (typeof first !== 'number' || !isBuffer(source)) return { bytes: source, options: first };
  const [length, options] =
    typeof second === 'number' ? [second, third] : [source.byteLength - first, second];
  const fits = [first, length].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (fits && first + length <= source.byteLength) return { bytes: bytesOf(source, first, length), options };
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `create: byteOffset ${first} and byteLength ${length} don't fit a buffer of ${source.byteLength} bytes`,
  );
}

function pathOf(url: URL | string): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    const { message } = cause as Error;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `create: ${url} is not a file: URL (${message}); fetch the model and pass its bytes`,
      { cause },
    );
  }
}

function isBuffer(value: unknown): value is ArrayBufferLike {
  const tag = Object.prototype.toString.call(value);
  return tag === '[object ArrayBuffer]' || tag === '[object SharedArrayBuffer]';
}
