/** Limits on the memory that one data file may take; a larger file is refused before it is read. */
export interface DataLimits {
  /** Most pixels of an image; 2^26 (8192 x 8192) when left out. */
  readonly maxPixels?: number | undefined;
  /** Most bytes of a file that holds many images, after decompression; 2^30 when left out. */
  readonly maxBytes?: number | undefined;
}

export const MAX_PIXELS = 2 ** 26;
export const MAX_BYTES = 2 ** 30;
