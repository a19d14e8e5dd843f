/** Signatures over an audit log: each covers everything before it, since every link covers the line before. */
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ResidualSkipError } from '../errors.js';
import { sha256 } from './hash.js';
import { type AuditCheckpoint, wholeLink } from './record.js';

/** A signature over an audit log up to a line. */
export interface Checkpoint extends Omit<AuditCheckpoint, 'type'> {
  /** Of that line. */
  readonly link: string;
}

const signedText = (time: number, link: string) =>
  Buffer.from(`residual-skip checkpoint ${time} ${wholeLink(link)}`);

/** SHA-256 of a public key in DER form, or of the one that belongs to a private key. */
function idOf(key: KeyObject): string {
  const { type } = key;
  return sha256((type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' }));
}

function readKey(file: string, what: string, parse: (pem: Buffer) => KeyObject): KeyObject {
  const refuse = (problem: string, cause?: unknown) =>
    new ResidualSkipError(
      'INVALID_ARGUMENT',
      `key '${file}': ${problem}; expected ${what} of Ed25519 as PEM`,
      {
        cause,
      },
    );
  let key: KeyObject;
  try {
    key = parse(readFileSync(file));
  } catch (cause) {
    throw refuse(`it can't be read (${(cause as Error).message})`, cause);
  }
  if (key.asymmetricKeyType !== 'ed25519') throw refuse(`it is of the kind ${key.asymmetricKeyType}`);
  return key;
}

/**
 * Signs links with the private key in a PEM file.
 * @throws ResidualSkipError INVALID_ARGUMENT for a file that has no such key
 */
export function signer(file: string): (link: string) => Checkpoint {
  const key = readKey(file, 'a private key', (pem) => createPrivateKey(pem));
  const id = idOf(key);
  return (link) => {
    const time = Date.now();
    const signature = sign(null, signedText(time, link), key).toString('base64');
    return { time, key: id, signature, link };
  };
}

/**
 * Checks signatures with the public (or private) key in a PEM file.
 * @returns what is wrong with one; undefined if nothing is
 * @throws ResidualSkipError INVALID_ARGUMENT for a file that has no such key
 */
export function verifier(file: string): (checkpoint: Checkpoint) => string | undefined {
  const key = readKey(file, 'a public key', (pem) => createPublicKey(pem));
  const id = idOf(key);
  return ({ time, key: signedWith, signature, link }) => {
    if (signedWith !== id) return `it was signed with another key, of SHA-256 ${signedWith}`;
    const holds = verify(null, signedText(time, link), key, Buffer.from(signature, 'base64'));
    return holds ? undefined : "its signature doesn't hold";
  };
}
