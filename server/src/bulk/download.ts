import { type LookupAddress, lookup } from 'node:dns';
import * as http from 'node:http';
import * as https from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { type ImageOptions, JobFailure, MAX_BYTES, TOO_LARGE } from './job.js';

const DOWNLOAD_MS = 60_000;
const MAX_REDIRECTS = 5;

/** Addresses that aren't public: IANA's registries of special-purpose addresses (RFC 6890). */
const PRIVATE = new BlockList();
for (const [net, prefix] of [
  ...[['0.0.0.0', 8] as const, ['10.0.0.0', 8] as const, ['100.64.0.0', 10] as const],
  ...[['127.0.0.0', 8] as const, ['169.254.0.0', 16] as const, ['172.16.0.0', 12] as const],
  ...[['192.0.0.0', 24] as const, ['192.0.2.0', 24] as const, ['192.88.99.0', 24] as const],
  ...[['192.168.0.0', 16] as const, ['198.18.0.0', 15] as const, ['198.51.100.0', 24] as const],
  ...[['203.0.113.0', 24] as const, ['224.0.0.0', 4] as const, ['240.0.0.0', 4] as const],
])
  PRIVATE.addSubnet(net, prefix, 'ipv4');
for (const [net, prefix] of [
  // The last three hold IPv4 addresses: of translators, of 6to4 and of Teredo.
  ...[['::', 96] as const, ['fc00::', 7] as const, ['fe80::', 9] as const, ['ff00::', 8] as const],
  ...[['64:ff9b::', 32] as const, ['2002::', 16] as const, ['2001::', 32] as const],
])
  PRIVATE.addSubnet(net, prefix, 'ipv6');

export function isPrivate(address: string): boolean {
  return PRIVATE.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

/**
 * The bytes at a URL, after at most 5 redirects. The address that was checked is the one that is connected to.
 * @throws JobFailure; with `retry` if it may be available later
 */
export async function download(
  url: string,
  name: string,
  { privateUrls = false }: ImageOptions,
): Promise<Uint8Array> {
  const failure = (why: string, retry: boolean, cause?: unknown) =>
    new JobFailure('INVALID_DATA', `image ${name}: ${why}`, retry, { cause });
  const refused = (host: string) =>
    failure(
      `${host} has an address that is not public; --private-urls lets jobs of this queue reach it`,
      false,
    );
  const signal = AbortSignal.timeout(DOWNLOAD_MS);
  try {
    let next = new URL(url);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      if (!/^https?:$/.test(next.protocol)) throw failure(`it is redirected to ${next.protocol}`, false);
      const host = next.hostname.replace(/^\[|\]$/g, '');
      // Only names are looked up.
      if (!privateUrls && isIP(host) && isPrivate(host)) throw refused(host);
      const answer = await get(next, signal, privateUrls ? lookup : publicLookup(() => refused(host)));
      const { statusCode: status = 0, headers } = answer;
      const redirected = [301, 302, 303, 307, 308].includes(status) && headers.location !== undefined;
      if (redirected) {
        answer.destroy();
        next = new URL(headers.location!, next);
        continue;
      }
      if (status < 200 || status > 299) {
        answer.destroy();
        // These two are the only 4xx errors that are worth a retry.
        throw failure(`the server answered ${status}`, status >= 500 || status === 408 || status === 429);
      }
      return await bodyOf(answer, () => failure(TOO_LARGE, false));
    }
    throw failure(`it is redirected more than ${MAX_REDIRECTS} times`, false);
  } catch (cause) {
    if (cause instanceof JobFailure) throw cause;
    throw failure((cause as Error).message || String((cause as NodeJS.ErrnoException).code), true, cause);
  }
}

function get(url: URL, signal: AbortSignal, look: typeof lookup): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { get: send } = url.protocol === 'https:' ? https : http;
    const headers = { 'accept-encoding': 'identity', 'user-agent': 'residual-skip' };
    send(url, { signal, headers, agent: false, lookup: look as LookupFunction }, resolve).on('error', reject);
  });
}

/** Looks names up as usual; an error if any of the addresses isn't public. */
function publicLookup(refused: () => Error): typeof lookup {
  const look: LookupFunction = (host, options, done) =>
    lookup(host, { ...options, all: true }, (error, found: LookupAddress[]) => {
      if (error) return done(error, '', 0);
      if (found.some(({ address }) => isPrivate(address))) return done(refused(), '', 0);
      if (options.all) return done(null, found);
      const [{ address, family } = { address: '', family: 0 }] = found;
      done(null, address, family);
    });
  return look as typeof lookup;
}

async function bodyOf(answer: http.IncomingMessage, tooLarge: () => Error): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > MAX_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
