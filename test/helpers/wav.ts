/** How a file is written; 16-bit PCM of one channel at 8,000 samples a second when left out. */
export interface Layout {
  readonly format?: number;
  readonly bits?: number;
  readonly channels?: number;
  readonly rate?: number;
  readonly extensible?: boolean;
}

const chunk = (name: string, data: Uint8Array) => {
  const head = Buffer.alloc(8);
  head.write(name, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, data, Buffer.alloc(data.length % 2)]);
};

/** A WAV file with a chunk of odd length, which says nothing, before the samples. */
export function wav(
  data: Uint8Array,
  { format = 1, bits = 16, channels = 1, rate = 8000, extensible }: Layout = {},
) {
  const header = Buffer.alloc(extensible ? 40 : 16);
  header.writeUInt16LE(extensible ? 0xfffe : format, 0);
  header.writeUInt16LE(channels, 2);
  header.writeUInt32LE(rate, 4);
  header.writeUInt32LE((rate * channels * bits) / 8, 8);
  header.writeUInt16LE((channels * bits) / 8, 12);
  header.writeUInt16LE(bits, 14);
  if (extensible) header.writeUInt16LE(format, 24);
  const body = [chunk('fmt ', header), chunk('LIST', Buffer.from('abc')), chunk('data', data)];
  return chunk('RIFF', Buffer.concat([Buffer.from('WAVE'), ...body]));
}
