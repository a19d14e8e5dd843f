import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ServerError } from './errors.js';

/** What a token may be granted beside inference. */
const RIGHTS = ['priority', 'control'] as const;
type Right = (typeof RIGHTS)[number];

/** Who sends a request, and what it may do. */
export interface Access {
  /** The name of the token, or else the address: the server is shared equally between clients. */
  readonly client: string;
  /** Whose items promises are tested with; '' for all clients without a group. */
  readonly group: string;
  readonly rights: ReadonlySet<Right>;
}

/** Of whoever is on the machine, at the control port. */
export const EVERYTHING: Access = { client: 'control', group: '', rights: new Set(RIGHTS) };

/** Checks the `authorization` header of a request from an address; throws UNAUTHENTICATED. */
export type Authenticate = (authorization: string | undefined, address: string) => Access;

/**
 * Grants access to requests with one of the tokens in a file: as `Bearer TOKEN`, or as the password of `Basic`, for which browsers
 * prompt. Each line has a token, and behind it what it may do beside inference: `priority` (requests with a priority), `control`
 * (loading and unloading of models), `name=NAME`, by which logs and audit records call it, and `group=NAME`: what promises hold is tested
 * for each group of clients by itself.
 * @param file undefined grants access to everybody
 * @param trusted whether everybody may do everything, where there are no tokens
 */
export async function authenticator(
  file: string | undefined,
  trusted: boolean,
): Promise<{ readonly authenticate: Authenticate; readonly reload: () => Promise<void> }> {
  if (file === undefined) {
    const rights = new Set(trusted ? RIGHTS : []);
    return {
      authenticate: (_authorization, address) => ({ client: addressOf(address), group: '', rights }),
      reload: async () => {},
    };
  }
  let known: ReturnType<typeof parseTokens>;
  const reload = async () => {
    known = parseTokens(file, await readFile(file, 'utf8'));
  };
  await reload();
  const authenticate: Authenticate = (authorization) => {
    const token = tokenOf(authorization);
    const own = token === undefined ? undefined : digest(token);
    const found = own && known.find((one) => timingSafeEqual(one.digest, own));
    if (found) return found.access;
    throw new ServerError(
      'UNAUTHENTICATED',
      'header Authorization: it has no valid token; send Bearer TOKEN',
    );
  };
  return { authenticate, reload };
}

/** Throws PERMISSION_DENIED. */
export function checkRight({ rights }: Access, right: Right, what: string): void {
  if (rights.has(right)) return;
  throw new ServerError(
    'PERMISSION_DENIED',
    `${what}: it takes a token with the right '${right}'; write '${right}' behind the token in the server's token file`,
  );
}

function parseTokens(file: string, text: string) {
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/));
  const known = lines.flatMap(([token, ...words], i) => {
    if (!token) return [];
    const { name = `token ${i}`, group = '', rights } = grantOf(words);
    const unknown = rights.find((right) => !(RIGHTS as readonly string[]).includes(right));
    if (unknown !== undefined) {
      throw new ServerError(
        'INVALID_ARGUMENT',
        `token file ${file}: line ${i + 1} grants something unknown; write ${RIGHTS.join(' or ')}, name=NAME or group=NAME behind a token, or nothing`,
      );
    }
    const access: Access = { client: name, group, rights: new Set(rights as Right[]) };
    return [{ digest: digest(token), access }];
  });
  if (known.length > 0) return known;
  throw new ServerError('INVALID_ARGUMENT', `token file ${file}: it holds no token; write one on each line`);
}

/** What follows a token: rights, what logs call whoever has it, and its group. */
function grantOf(words: readonly string[]): {
  readonly name?: string;
  readonly group?: string;
  readonly rights: readonly string[];
} {
  const named = Object.fromEntries(
    words.flatMap((word) => {
      const [, key, value] = /^(name|group)=(.+)$/.exec(word) ?? [];
      return key === undefined ? [] : [[key, value!]];
    }),
  );
  return { ...named, rights: words.filter((word) => !/^(name|group)=./.test(word)) };
}

/** An address that a client can't choose freely: of IPv6, its network of 64 bits. */
export function addressOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=[\d.]+$)/, '');
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = head.split(':');
  if (tail !== undefined) {
    const rest = tail === '' ? 0 : tail.split(':').length;
    while (groups.length + rest < 8) groups.push('0');
  }
  return groups.slice(0, 4).join(':');
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
