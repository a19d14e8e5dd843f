/** What one file of data may take in memory; more is refused before it is read. */
export interface DataLimits {
  /** Pixels of an image; 2^26, as 8192 x 8192 has, when left out. */
  readonly maxPixels?: number | undefined;
  /** Bytes of a file that holds many images, unpacked where it is compressed; 2^30 when left out. */
  readonly maxBytes?: number | undefined;
}

export const MAX_PIXELS = 2 ** 26;
export const MAX_BYTES = 2 ** 30;
