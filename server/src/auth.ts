import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ServerError } from './errors.js';

/** Checks what a request says of itself in its `authorization`; throws UNAUTHENTICATED. */
export type Authenticate = (authorization: string | undefined) => void;

/**
 * Access for whoever has one of the tokens in a file, one on each line: `Bearer TOKEN`, or `Basic` with the token as the
 * password, which is what a browser asks for.
 * @param file undefined: everybody has access
 */
export async function authenticator(file: string | undefined): Promise<Authenticate> {
  if (file === undefined) return () => {};
  const lines = (await readFile(file, 'utf8')).split('\n').map((line) => line.trim());
  const known = lines.filter((line) => line !== '').map(digest);
  if (known.length === 0) throw new ServerError('INVALID_ARGUMENT', `the token file ${file} holds no token`);
  return (authorization) => {
    const token = tokenOf(authorization);
    if (token !== undefined && known.some((one) => timingSafeEqual(one, digest(token)))) return;
    throw new ServerError('UNAUTHENTICATED', 'send a valid token as Authorization: Bearer TOKEN');
  };
}

function tokenOf(authorization: string | undefined): string | undefined {
  const [scheme, value] = authorization?.split(' ', 2) ?? [];
  if (value === undefined) return undefined;
  if (/^bearer$/i.test(scheme!)) return value;
  if (!/^basic$/i.test(scheme!)) return undefined;
  const credentials = Buffer.from(value, 'base64').toString();
  return credentials.slice(credentials.indexOf(':') + 1);
}

/** Of equal length for all tokens, so that they can be compared in constant time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
