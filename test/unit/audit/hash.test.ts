import { createHash } from 'node:crypto';
import { DIGEST_BYTES, hashAll } from 'lib/audit/hash.js';
import { nativeSha256 } from 'lib/backends/addon.js';
import { randomFloats } from '../../helpers/random.js';

const bytes = (length: number, seed: number) =>
  new Uint8Array(randomFloats(Math.ceil(length / 4), seed).buffer, 0, length);

const digestsOf = (messages: readonly (readonly Uint8Array[])[]) =>
  messages.map((pieces) => {
    const hash = createHash('sha256');
    for (const piece of pieces) hash.update(piece);
    return hash.digest('hex');
  });

const split = (digests: Uint8Array) =>
  Array.from({ length: digests.length / DIGEST_BYTES }, (_, i) =>
    Buffer.from(digests.subarray(DIGEST_BYTES * i, DIGEST_BYTES * (i + 1))).toString('hex'),
  );

/** Lengths about the ends of blocks, and neighbours of other lengths. */
const LENGTHS = [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000, 12288, 5, 12288, 12287];

test('the hashes of messages of any length, many at once', () => {
  for (let count = 0; count <= LENGTHS.length; count++) {
    const messages = LENGTHS.slice(0, count).map((length, i) => [bytes(length, i)]);
    expect(split(hashAll(messages))).toEqual(digestsOf(messages));
  }
});

test('messages in several pieces', () => {
  const messages = LENGTHS.map((length, i) => [bytes(length, i), bytes(7 * i, 100 + i)]);
  expect(split(hashAll(messages))).toEqual(digestsOf(messages));
});

const native = nativeSha256();
(native ? test : test.skip)('the native function refuses what does not fit', () => {
  const invalid = expect.objectContaining({ code: 'INVALID_ARGUMENT' });
  const call = (...args: unknown[]) => {
    try {
      (native as (...args: unknown[]) => void)(...args);
    } catch (error) {
      return error;
    }
    return undefined;
  };
  expect(call([bytes(3, 1), bytes(3, 2)], new Uint8Array(63))).toEqual(invalid);
  expect(call([[1, 2, 3]], new Uint8Array(32))).toEqual(invalid);
  expect(call()).toEqual(invalid);
});
