import { promisify } from 'node:util';
import { deflate, gunzip, gzip, inflate } from 'node:zlib';
import { ServerError } from '../errors.js';

const CODECS = {
  gzip: { pack: promisify(gzip), unpack: promisify(gunzip) },
  // HTTP's name for the zlib format (RFC 9110, 8.4.1.2).
  deflate: { pack: promisify(deflate), unpack: promisify(inflate) },
};
export type Encoding = keyof typeof CODECS;

export function isEncoding(name: string): name is Encoding {
  return Object.hasOwn(CODECS, name);
}

/** Bytes that a byte usually becomes at most, and those that it ever does. */
const USUAL = 4;
const MOST = 1032;
/** zlib needs some. */
const LEAST_ROOM = 64;

/**
 * A body that was sent in a Content-Encoding. Memory for all of it comes first, whose pages take nothing until they are used: parts would be
 * joined, and wait as garbage. V8 counts all of it, however, so that there is much of it only where it is needed.
 * @param limit of the result in bytes
 * @throws ServerError INVALID_ARGUMENT, TOO_LARGE
 */
export async function unpacked(body: Uint8Array, encoding: Encoding, limit: number): Promise<Uint8Array> {
  const { unpack } = CODECS[encoding];
  for (const each of [USUAL, MOST]) {
    const maxOutputLength = Math.max(LEAST_ROOM, Math.min(each * body.length, limit));
    try {
      return await unpack(body, { maxOutputLength, chunkSize: maxOutputLength });
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      if (code !== 'ERR_BUFFER_TOO_LARGE')
        throw new ServerError('INVALID_ARGUMENT', `body: it can't be unpacked (${message})`, { cause });
    }
  }
  throw new ServerError(
    'TOO_LARGE',
    `body: unpacked it is longer than the ${limit} bytes that this server takes`,
  );
}

/**
 * The encoding in which a client wants its answer. Those that name several take any, as browsers and fetch() always do: they get none,
 * since packing an answer takes longer than the rest of it.
 */
export function wantedEncoding(accepted: string | undefined): Encoding | undefined {
  return accepted === 'gzip' || accepted === 'deflate' ? accepted : undefined;
}

export function packed(body: Uint8Array, encoding: Encoding): Promise<Buffer> {
  return CODECS[encoding].pack(body, { level: 1 });
}
