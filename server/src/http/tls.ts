import { readFile } from 'node:fs/promises';
import type { ParsedOptions } from '../options.js';

/** The contents of PEM files. */
export interface Pem {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Of those that sign the certificates of clients, which then need one. */
  readonly ca?: Buffer;
}

export async function readPem(tls: ParsedOptions['tls']): Promise<Pem | undefined> {
  if (!tls) return undefined;
  const [cert, key, ca] = await Promise.all([
    readFile(tls.cert),
    readFile(tls.key),
    tls.clientCa === undefined ? undefined : readFile(tls.clientCa),
  ]);
  return { cert, key, ...(ca && { ca }) };
}
