/** What a file that is no ONNX model seems to be, by its first bytes. */

/** As many bytes of the file's beginning as `kindOf` looks at. */
export const BEGINNING_BYTES = 512;

const LFS_POINTER = 'a Git LFS pointer';
const WEB_PAGE = 'an HTML page';

/** By how the file begins, as Latin-1 text. */
const KINDS: readonly (readonly [beginning: string | RegExp, kind: string])[] = [
  [/^$/, 'an empty file'],
  ['version https://git-lfs', LFS_POINTER],
  [/^(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)/i, WEB_PAGE],
  [/^(\xef\xbb\xbf)?\s*<\?xml/i, 'an XML file'],
  ['\x89PNG', 'a PNG image'],
  ['\xff\xd8\xff', 'a JPEG image'],
  ['GIF8', 'a GIF image'],
  ['PK\x03\x04', 'a ZIP archive, such as a checkpoint of PyTorch'],
  ['\x1f\x8b', 'a gzip archive'],
  [/^\x80[^ -~]/, 'a Python pickle, such as a checkpoint of PyTorch'],
  ['GGUF', 'a GGUF model'],
  [/^.{4}TFL3/s, 'a TensorFlow Lite model'],
  ['\x89HDF', 'an HDF5 file, such as a model of Keras'],
  [/^.{8}\{"/s, 'a file of safetensors'],
  [/^(\xef\xbb\xbf)?\s*[{[]\s*["{[\]}]/, 'a JSON file'],
];

/** What a file that begins like this seems to be, with its article; undefined if nothing is known. */
export function kindOf(beginning: Uint8Array): string | undefined {
  const text = Buffer.from(beginning.subarray(0, BEGINNING_BYTES)).toString('latin1');
  return KINDS.find(([how]) => (typeof how === 'string' ? text.startsWith(how) : how.test(text)))?.[1];
}

/** What to do about a file of this kind. */
export function wayOut(kind: string | undefined): string {
  if (kind === LFS_POINTER) return "run 'git lfs pull' to get the file that it stands for";
  if (kind === WEB_PAGE) return 'download the file itself, not the page about it';
  return 'download or export it again, as ONNX';
}
