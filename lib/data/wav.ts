/** WAV files: samples of one channel, from -1 to 1. */
import { ResidualSkipError } from '../errors.js';

export interface Sound {
  /** Samples of a second. */
  readonly rate: number;
  /** The mean of all channels. */
  readonly samples: Float32Array;
}

const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe] as const;
const FORMAT_BYTES = 16;
/** Where the format of an extensible header is. */
const SUBFORMAT_AT = 24;

/** Reads the sample at a byte; integers become shares of the largest. Those of 8 bits are unsigned. */
const READERS: Readonly<Record<string, (bytes: Buffer, at: number) => number>> = {
  [`${PCM}/8`]: (bytes, at) => (bytes[at]! - 128) / 2 ** 7,
  [`${PCM}/16`]: (bytes, at) => bytes.readInt16LE(at) / 2 ** 15,
  [`${PCM}/24`]: (bytes, at) => bytes.readIntLE(at, 3) / 2 ** 23,
  [`${PCM}/32`]: (bytes, at) => bytes.readInt32LE(at) / 2 ** 31,
  [`${FLOAT}/32`]: (bytes, at) => bytes.readFloatLE(at),
  [`${FLOAT}/64`]: (bytes, at) => bytes.readDoubleLE(at),
};

/**
 * Source of the layout: Microsoft and IBM, "Multimedia programming interface and data specifications 1.0", 1991; of the extensible header,
 * `WAVEFORMATEXTENSIBLE`.
 * @param what is read, for messages
 * @throws ResidualSkipError INVALID_DATA for what is no WAV file of PCM or floats
 */
export function parseWav(bytes: Buffer, what: string): Sound {
  const problem = (why: string) => new ResidualSkipError('INVALID_DATA', `${what}: ${why}`);
  if (bytes.toString('latin1', 0, 4) !== 'RIFF' || bytes.toString('latin1', 8, 12) !== 'WAVE')
    throw problem('it is no WAV file');
  let format: Buffer | undefined;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const [name, size] = [bytes.toString('latin1', at, at + 4), bytes.readUInt32LE(at + 4)];
    const chunk = bytes.subarray(at + 8, at + 8 + size);
    if (name === 'fmt ') format = chunk;
    if (name === 'data') {
      if (!format || format.length < FORMAT_BYTES) throw problem('it has samples before their format');
      if (chunk.length < size)
        throw problem(`it ends too early: ${chunk.length} of ${size} bytes of samples`);
      return soundOf(chunk, format, problem);
    }
    // Chunks begin at even bytes.
    at += 8 + size + (size % 2);
  }
  throw problem('it has no samples');
}

function soundOf(data: Buffer, format: Buffer, problem: (why: string) => Error): Sound {
  const [channels, rate] = [format.readUInt16LE(2), format.readUInt32LE(4)];
  const [frame, bits] = [format.readUInt16LE(12), format.readUInt16LE(14)];
  const given = format.readUInt16LE(0);
  const extended = given === EXTENSIBLE && format.length >= SUBFORMAT_AT + 2;
  const tag = extended ? format.readUInt16LE(SUBFORMAT_AT) : given;
  const read = READERS[`${tag}/${bits}`];
  if (!read) {
    throw problem(
      `its samples are of format ${tag} with ${bits} bits; expected PCM (1) of 8, 16, 24 or 32 or floats (3) of 32 or 64`,
    );
  }
  const width = bits / 8;
  if (channels === 0 || rate === 0 || frame !== channels * width)
    throw problem('its header contradicts itself');
  const samples = new Float32Array(Math.floor(data.length / frame));
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += read(data, i * frame + c * width);
    samples[i] = sum / channels;
  }
  return { rate, samples };
}
