/** Files of NumPy's arrays. */
import { deflateRawSync } from 'node:zlib';
import type { Tensor } from 'lib/tensor/tensor.js';
import { type FormName, taskItems } from './task-networks.js';

/** A `.npy` file, as its specification says (numpy.lib.format, version 1.0). */
export function npy(descr: string, shape: readonly number[], elements: Uint8Array, fortran = false): Buffer {
  const dims = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const header = `{'descr': '${descr}', 'fortran_order': ${fortran ? 'True' : 'False'}, 'shape': (${dims}), }`;
  const padded = `${header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11)}\n`;
  const length = Buffer.from([padded.length & 255, padded.length >> 8]);
  return Buffer.concat([
    Buffer.from('\x93NUMPY\x01\x00', 'latin1'),
    length,
    Buffer.from(padded, 'latin1'),
    elements,
  ]);
}

/** A ZIP archive. */
export function zip(members: Readonly<Record<string, Buffer>>, deflated: boolean): Buffer {
  const [parts, entries]: [Buffer[], Buffer[]] = [[], []];
  let at = 0;
  for (const [name, whole] of Object.entries(members)) {
    const data = deflated ? deflateRawSync(whole) : whole;
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(deflated ? 8 : 0, 4);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(whole.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, Buffer.from(name), data]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(at, 10);
    entries.push(
      Buffer.concat([Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, rest, Buffer.from(name)]),
    );
    parts.push(local);
    at += local.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  for (const field of [8, 10]) end.writeUInt16LE(entries.length, field);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, directory, end]);
}

export const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** The items of a form as arrays whose first axis has them. */
export function stacked(form: FormName, count: number, seed = 3): Record<string, Buffer> {
  const items = taskItems(form, count, seed) as Record<string, Tensor<'float32'>>[];
  return Object.fromEntries(
    Object.entries(items[0]!).map(([name, { dims }]) => {
      const elements = Buffer.concat(items.map((feeds) => bytesOf(feeds[name]!.data)));
      return [`${name}.npy`, npy('<f4', [count, ...dims.slice(1)], elements)];
    }),
  );
}
