import { ResidualSkipError } from './errors.js';

/** What a model is loaded from: the path of its file or folder, or the bytes of its file. */
export type ModelSource = string | Uint8Array | ArrayBufferLike;

function bytesOf(buffer: ArrayBufferLike, offset?: number, length?: number): Uint8Array {
  try {
    return new Uint8Array(buffer, offset, length);
  } catch (cause) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      "create: the model's buffer was transferred to another thread; hand over a copy",
      { cause },
    );
  }
}

/** `source` as `loadModel` takes it; INVALID_ARGUMENT for anything else. */
export function checkSource(source: unknown): string | Uint8Array {
  if (typeof source === 'string') return source;
  // Not instanceof: bytes may come from another realm (a vm context, a test runner).
  if (ArrayBuffer.isView(source)) return bytesOf(source.buffer, source.byteOffset, source.byteLength);
  const tag = Object.prototype.toString.call(source);
  if (tag === '[object ArrayBuffer]' || tag === '[object SharedArrayBuffer]') {
    return bytesOf(source as ArrayBufferLike);
  }
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    'create: expected the path of a model, or its bytes in a Buffer, Uint8Array or ArrayBuffer',
  );
}
