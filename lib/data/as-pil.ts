/** Colours that PIL's `convert('RGB')` finds otherwise than libvips. */
import type { Sliced } from '../util/slices.js';

const EXTENSION = 0x21;
const GRAPHIC_CONTROL = 0xf9;

/** The bytes of colours behind a byte of a GIF that says whether there are any, and how many. */
const paletteBytes = (flags: number) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);

/** A GIF whose first image has no transparent colour, so that its pixels keep theirs; the same bytes if it has none anyway. */
export function opaqueGif(file: Uint8Array): Uint8Array {
  let at = 13 + paletteBytes(file[10] ?? 0);
  while (file[at] === EXTENSION) {
    const flags = at + 3;
    if (file[at + 1] === GRAPHIC_CONTROL && file[flags]! & 1) {
      const opaque = Uint8Array.from(file);
      opaque[flags]! &= ~1;
      return opaque;
    }
    // Blocks, each behind its length, of which the last is empty.
    for (at += 2; file[at]; at += 1 + file[at]!);
    at++;
  }
  return file;
}

/** Pixels between two looks at the clock. */
export const SLICE = 1 << 15;

/** Writes the RGB of CMYK pixels over them. @returns the part that holds it */
export function* rgbOfCmyk(data: Uint8Array): Sliced<Uint8Array> {
  const pixels = data.length / 4;
  for (let from = 0; from < pixels; from += SLICE) {
    for (let i = from; i < Math.min(from + SLICE, pixels); i++) {
      const light = 255 - data[4 * i + 3]!;
      for (let c = 0; c < 3; c++) {
        // A product of bytes divided by 255, rounded.
        const product = data[4 * i + c]! * light + 128;
        data[3 * i + c] = light - (((product >> 8) + product) >> 8);
      }
    }
    yield;
  }
  return data.subarray(0, 3 * pixels);
}
