import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ServerError } from './errors.js';

/** Checks the `authorization` header of a request; throws UNAUTHENTICATED. */
export type Authenticate = (authorization: string | undefined) => void;

/**
 * Grants access to requests with one of the tokens in a file (one per line): as `Bearer TOKEN`, or as the password of
 * `Basic`, for which browsers prompt.
 * @param file undefined grants access to everybody
 */
export async function authenticator(file: string | undefined): Promise<Authenticate> {
  if (file === undefined) return () => {};
  const lines = (await readFile(file, 'utf8')).split('\n').map((line) => line.trim());
  const known = lines.filter((line) => line !== '').map(digest);
  if (known.length === 0)
    throw new ServerError(
      'INVALID_ARGUMENT',
      `token file ${file}: it holds no token; write one on each line`,
    );
  return (authorization) => {
    const token = tokenOf(authorization);
    if (token !== undefined && known.some((one) => timingSafeEqual(one, digest(token)))) return;
    throw new ServerError(
      'UNAUTHENTICATED',
      'header Authorization: it has no valid token; send Bearer TOKEN',
    );
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

/** All digests have the same length, so they can be compared in constant time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
