import { promisify } from 'node:util';
import { deflate, gunzip, gzip, inflate } from 'node:zlib';
import { ServerError } from './errors.js';

const CODECS = {
  gzip: { pack: promisify(gzip), unpack: promisify(gunzip) },
  // HTTP's name for the zlib format (RFC 9110, 8.4.1.2).
  deflate: { pack: promisify(deflate), unpack: promisify(inflate) },
};
type Encoding = keyof typeof CODECS;

let last: Promise<unknown> = Promise.resolve();

/**
 * The body that was sent in a Content-Encoding. One is unpacked at a time: a few bytes may become many.
 * @param limit of the result in bytes
 * @throws ServerError INVALID_ARGUMENT, TOO_LARGE
 */
export function unpacked(body: Uint8Array, encoding: string, limit: number): Promise<Uint8Array> {
  if (!Object.hasOwn(CODECS, encoding)) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `header Content-Encoding: ${encoding} isn't supported; send gzip, deflate or none`,
    );
  }
  const { unpack } = CODECS[encoding as Encoding];
  const next = last.then(() => unpack(body, { maxOutputLength: limit }));
  last = next.catch(() => {});
  return next.catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ERR_BUFFER_TOO_LARGE')
      throw new ServerError(
        'TOO_LARGE',
        `body: unpacked it is longer than the ${limit} bytes that this server takes`,
      );
    throw new ServerError('INVALID_ARGUMENT', `body: it can't be unpacked (${cause.message})`, { cause });
  });
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
