/** Base64 in requests: all of its usual forms are read, and nothing in it is passed over. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { bytesOfDataUrl } from '../../server/src/bulk/image-bytes.js';
import { bytesOfBase64 } from '../../server/src/inference/base64.js';

const read = (text: string) => bytesOfBase64(text, (problem) => new Error(problem));
const CHARACTERS = /^[A-Za-z0-9+/_-]*$/;

test('bytes of any number are read, with padding, without, in the other alphabet, and in lines', () => {
  for (let length = 0; length < 200; length++) {
    const bytes = randomBytes(length);
    const text = bytes.toString('base64');
    const lines = text.replace(/.{1,76}/g, '$&\r\n');
    const forms = [
      text,
      text.replace(/=+$/, ''),
      bytes.toString('base64url'),
      lines,
      lines.replaceAll('\r', ''),
    ];
    for (const form of forms) expect(read(form)).toEqual(bytes);
  }
});

test('a character that is no digit is found wherever it is', () => {
  const character = fc.string({ minLength: 1, maxLength: 1, unit: 'binary' });
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.nat(),
      character,
      fc.boolean(),
      (bytes, place, other, instead) => {
        fc.pre(!CHARACTERS.test(other) && !['=', '\n'].includes(other));
        const text = Buffer.from(bytes).toString('base64');
        const at = place % text.replace(/=+$/, '').length;
        expect(() => read(text.slice(0, at) + other + text.slice(at + Number(instead)))).toThrow(
          /^it isn't base64/,
        );
      },
    ),
    { numRuns: 2000 },
  );
});

test.each([
  ['padding before the end', 'YWJj=ZGVm', 'character 4 is "="'],
  ['two files in one text', 'YWI=YWI=', 'character 3 is "="'],
  ['too much padding', 'YWI==', 'its padding is wrong'],
  ['only padding', '=', 'its padding is wrong'],
  ['a single digit', 'YWJjY', 'it ends too early'],
  ['a character whose last bits are those of a digit', 'YWJj\u0141WJj', 'character 4 is "\u0141"'],
  ['a space', 'YW Jj', 'character 2 is " "'],
])('%s is refused', (_, text, why) => {
  expect(() => read(text)).toThrow(why);
  expect(() => bytesOfDataUrl(`data:image/png;base64,${text}`)).toThrow(why);
});
