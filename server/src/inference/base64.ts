const FOREIGN = /[^A-Za-z0-9+/_\r\n-]/;

/**
 * The bytes of base64 in either alphabet (RFC 4648), with padding or without. Lines may be broken, as tools and e-mail do (RFC 2045).
 * @param invalid the error to throw for text that isn't base64
 */
export function bytesOfBase64(given: string, invalid: (problem: string) => Error): Buffer {
  const text = given.includes('\n') ? given.replace(/[\r\n]+/g, '') : given;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const digits = text.length - padding;
  const bytes = Buffer.from(text, 'base64');
  // Node.js passes over other characters, and ends at padding: then bytes are missing. Of characters above 255 it takes the last 8 bits.
  const isWhole = bytes.length === Math.floor((digits * 3) / 4) && Buffer.byteLength(text) === text.length;
  if (isWhole && digits % 4 !== 1 && (padding === 0 || text.length % 4 === 0)) return bytes;
  const at = given.search(FOREIGN);
  const isForeign = at >= 0 && at < given.trimEnd().length - padding;
  throw invalid(
    isForeign
      ? `it isn't base64: character ${at} is ${JSON.stringify(given[at])}`
      : "it isn't base64: it ends too early, or its padding is wrong",
  );
}
