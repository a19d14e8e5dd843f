/** Files of tensors: NumPy's `.npy` and `.npz`, raw elements, `.raw`, and sounds, `.wav`. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import {
  ARRAY_OF,
  copyData,
  type DataType,
  ELEMENT_BYTES,
  Tensor,
  type TensorData,
} from '../tensor/tensor.js';
import { kindOf, listFolder } from './files.js';
import { type DataLimits, MAX_BYTES } from './limits.js';
import { parseWav } from './wav.js';

/** An input of a network. */
interface Port {
  readonly name: string;
  readonly type: DataType;
  readonly shape: readonly (number | string)[];
}

/** What a network of sounds takes. */
export interface SoundForm {
  /** Samples of a second; any that all files share when undefined. */
  readonly rate: number | undefined;
  /** Whether each sound is shifted and scaled to a mean of 0 and a variance of 1, with 1e-7 added to it. */
  readonly normalizes: boolean;
}

/** A hash of what a network of sounds takes: sixteen hexadecimal digits. */
export function soundsId({ rate, normalizes }: SoundForm): string {
  return createHash('sha256')
    .update(JSON.stringify(['sounds', rate, normalizes]))
    .digest('hex')
    .slice(0, 16);
}

/** One item: tensors by input, and its class, if the file has one. */
export interface ArrayItem {
  readonly name: string;
  readonly feeds: { readonly [input: string]: Tensor };
  readonly label?: number | string;
}

const EXTENSIONS = ['.npy', '.npz', '.raw', '.wav'];
export const isArrayFile = (path: string) => EXTENSIONS.includes(extname(path).toLowerCase());

/** NumPy's names of types; all are little-endian. */
const TYPES: Readonly<Record<string, DataType>> = {
  ...{ '<f2': 'float16', '<f4': 'float32', '<f8': 'float64', '|b1': 'bool' },
  ...{ '|i1': 'int8', '<i2': 'int16', '<i4': 'int32', '<i8': 'int64' },
  ...{ '|u1': 'uint8', '<u2': 'uint16', '<u4': 'uint32', '<u8': 'uint64' },
};
/** Names of an array of classes in a `.npz` file. */
const LABELS = ['label', 'labels'];

/**
 * The items of a file, or of the files of a folder in the order of their names. In a `.npz` file arrays are named like the inputs, and one
 * called `label` or `labels` has the classes; a `.npy` file is of the only input. Their first axis has the items. A `.raw` file is one
 * item: the elements of the only input, little-endian, whose shape the network declares. A `.wav` file is one item, too: the samples of
 * the only input. Folders in a folder are classes, and items of a file there have its name as their label.
 * @throws ResidualSkipError INVALID_DATA naming the file
 */
export async function readArrays(
  path: string,
  ports: readonly Port[],
  { maxBytes = MAX_BYTES }: DataLimits,
  sounds: SoundForm = { rate: undefined, normalizes: false },
): Promise<readonly ArrayItem[]> {
  const kind = await kindOf(path);
  if (kind === undefined) throw new ResidualSkipError('INVALID_DATA', `data ${path}: it doesn't exist`);
  const files = kind === 'file' ? [{ file: path }] : await arrayFilesIn(path);
  const items: ArrayItem[] = [];
  let left = maxBytes;
  let form = sounds;
  for (const { file, label } of files) {
    const { items: read, rate } = await itemsOf(file, ports, left, form);
    if (rate !== undefined) form = { ...form, rate };
    for (const { feeds } of read) {
      for (const { data } of Object.values(feeds)) left -= data.byteLength;
    }
    items.push(...(label === undefined ? read : read.map((item) => ({ label, ...item }))));
  }
  return items;
}

/** The files of a folder, and those of the folders in it, which are classes. */
export async function arrayFilesIn(folder: string): Promise<{ file: string; label?: string }[]> {
  const { files, folders } = await listFolder(folder);
  const own = files.filter(isArrayFile).map((name) => ({ file: join(folder, name) }));
  const inner = [];
  for (const label of folders) {
    const { files: inside } = await listFolder(join(folder, label));
    inner.push(...inside.filter(isArrayFile).map((name) => ({ file: join(folder, label, name), label })));
  }
  return [...own, ...inner];
}

const invalid = (file: string, why: string) => new ResidualSkipError('INVALID_DATA', `file ${file}: ${why}`);

/** @returns the rate of a sound as well */
async function itemsOf(
  file: string,
  ports: readonly Port[],
  maxBytes: number,
  sounds: SoundForm,
): Promise<{ readonly items: readonly ArrayItem[]; readonly rate?: number }> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0;
  const tooLarge = `it holds more than the limit of ${maxBytes} bytes that is left (maxBytes, --max-bytes)`;
  if (size > maxBytes) throw invalid(file, tooLarge);
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw new ResidualSkipError('INVALID_DATA', `file ${file}: it can't be read`, { cause });
  });
  const kind = extname(file).toLowerCase();
  const [only, ...others] = ports;
  if (kind === '.npz') {
    const arrays = new Map<string, Tensor>();
    for (const [name, packed] of await unzipped(bytes, file, maxBytes, tooLarge)) {
      arrays.set(name.replace(/\.npy$/, ''), parseNpy(packed, `${file}, array '${name}'`));
    }
    return { items: rowsOf(arrays, file, ports) };
  }
  if (!only || others.length > 0) {
    const names = ports.map(({ name }) => name).join(', ');
    throw invalid(
      file,
      `it holds one array, but the network takes ${names}; give a .npz file with an array for each`,
    );
  }
  if (kind === '.npy') return { items: rowsOf(new Map([[only.name, parseNpy(bytes, file)]]), file, ports) };
  const name = `${basename(dirname(file))}/${basename(file)}`;
  if (kind === '.raw') return { items: [{ name, feeds: { [only.name]: parseRaw(bytes, file, only) } }] };
  const { rate, samples } = parseWav(bytes, `file ${file}`);
  if (rate !== (sounds.rate ?? rate)) {
    throw invalid(file, `it has ${rate} samples a second instead of ${sounds.rate}; resample it`);
  }
  return {
    rate,
    items: [{ name, feeds: { [only.name]: waveform(samples, file, only, sounds.normalizes) } }],
  };
}

/** The samples as the network takes them: along its last axis; all others are 1. */
function waveform(samples: Float32Array, file: string, { type, shape }: Port, normalizes: boolean): Tensor {
  const [last, others] = [shape.at(-1), shape.slice(1, -1)];
  if (type !== 'float32' || shape.length < 2 || others.some((length) => length !== 1)) {
    throw invalid(
      file,
      `the network takes ${type} [${shape.join(', ')}], no samples of a sound [n, samples]; give what it takes, such as spectrograms, as .npy files`,
    );
  }
  if (typeof last === 'number' && last !== samples.length) {
    throw invalid(file, `it has ${samples.length} samples, but the network takes ${last}; cut or pad it`);
  }
  return new Tensor('float32', normalizes ? normalized(samples) : samples, [
    ...shape.slice(0, -1).map(() => 1),
    samples.length,
  ]);
}

/** As the feature extractors of Hugging Face's networks of sounds do. */
function normalized(samples: Float32Array): Float32Array {
  const mean = samples.reduce((sum, x) => sum + x, 0) / samples.length;
  const variance = samples.reduce((sum, x) => sum + (x - mean) ** 2, 0) / samples.length;
  return samples.map((x) => (x - mean) / Math.sqrt(variance + 1e-7));
}

/** Each row of the first axis is an item. */
function rowsOf(arrays: ReadonlyMap<string, Tensor>, file: string, ports: readonly Port[]): ArrayItem[] {
  const labels = LABELS.filter((name) => !ports.some((port) => port.name === name)).map((name) =>
    arrays.get(name),
  );
  const classes = labels.find((array) => array !== undefined);
  const inputs = ports.map((port) => {
    const array = arrays.get(port.name);
    if (!array) {
      const found = [...arrays.keys()].join(', ') || 'none';
      throw invalid(file, `it has no array '${port.name}', which the network takes; it has ${found}`);
    }
    return { port, array };
  });
  const counts = [...inputs.map(({ array }) => array), ...(classes ? [classes] : [])].map(
    ({ dims }) => dims[0] ?? 0,
  );
  const count = counts[0] ?? 0;
  if (count === 0 || counts.some((other) => other !== count)) {
    throw invalid(
      file,
      `the first axes of its arrays, which have the items, are of length ${counts.join(', ')}; expected one length`,
    );
  }
  return Array.from({ length: count }, (_, i) => ({
    name: `${basename(dirname(file))}/${basename(file)}[${i}]`,
    feeds: Object.fromEntries(inputs.map(({ port, array }) => [port.name, rowOf(array, i, port)])),
    ...(classes && { label: labelOf(classes, i) }),
  }));
}

/** The class of row `i`. Several numbers for an item are no class, which is said where labels are read. */
function labelOf({ data, dims }: Tensor, i: number): number | string {
  const size = sizeOf(dims.slice(1));
  const row = Array.from(data.subarray(i * size, (i + 1) * size), Number);
  return size === 1 ? row[0]! : row.join(',');
}

/** Row `i` as a batch of one; numbers of NumPy's default type, float64, as the network takes them. */
function rowOf({ type, data, dims }: Tensor, i: number, port: Port): Tensor {
  const shape = [1, ...dims.slice(1)];
  const size = sizeOf(shape);
  const row = data.subarray(i * size, (i + 1) * size);
  if (type === 'float64' && port.type === 'float32')
    return new Tensor('float32', Float32Array.from(row as Float64Array), shape);
  return new Tensor(type, row as never, shape) as Tensor;
}

const HEADER = /^\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \}\s*$/;

/** NumPy's format 1 to 3: a magic string, the length of the header, the header as a literal of Python, the elements. */
function parseNpy(bytes: Uint8Array, what: string): Tensor {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const problem = (why: string) => new ResidualSkipError('INVALID_DATA', `${what}: ${why}`);
  if (view.length < 12 || view.toString('latin1', 0, 6) !== '\x93NUMPY') throw problem('it is no .npy file');
  const [length, from] = view[6] === 1 ? [view.readUInt16LE(8), 10] : [view.readUInt32LE(8), 12];
  const header = HEADER.exec(view.toString('latin1', from, from + length));
  if (!header) throw problem('its header is none of an array of numbers');
  const [, descr, fortran, dims] = header as unknown as [string, string, string, string];
  const shape = dims
    .split(',')
    .filter((part) => part.trim() !== '')
    .map(Number);
  const type = TYPES[descr];
  if (!type)
    throw problem(`its elements are of type ${descr}; expected one of ${Object.keys(TYPES).join(', ')}`);
  if (fortran === 'True' && shape.length > 1) {
    throw problem('its elements are in the order of Fortran; write numpy.ascontiguousarray(array)');
  }
  return new Tensor(
    type,
    elements(bytes.subarray(from + length), type, sizeOf(shape), problem) as never,
    shape,
  ) as Tensor;
}

function parseRaw(bytes: Uint8Array, file: string, { type, shape }: Port): Tensor {
  const dims = [1, ...shape.slice(1)];
  if (!dims.every((length) => typeof length === 'number')) {
    throw invalid(
      file,
      `the network's input [${shape.join(', ')}] has open lengths, which raw elements don't tell; give .npy files`,
    );
  }
  const problem = (why: string) => invalid(file, why);
  return new Tensor(
    type,
    elements(bytes, type, sizeOf(dims as number[]), problem) as never,
    dims as number[],
  ) as Tensor;
}

/** Copied to where elements of the type may begin. */
function elements(
  bytes: Uint8Array,
  type: DataType,
  count: number,
  problem: (why: string) => Error,
): TensorData {
  const size = count * ELEMENT_BYTES[type];
  if (bytes.length !== size)
    throw problem(`it has ${bytes.length} bytes of elements, but ${count} of type ${type} are ${size}`);
  return new ARRAY_OF[type](copyData(bytes).buffer as ArrayBuffer);
}

/** Signatures, and the positions of what is read in a record of the archive's directory (PKWARE's APPNOTE). */
const [END, ENTRY, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50] as const;
const [END_BYTES, ENTRY_BYTES, LOCAL_BYTES] = [22, 46, 30] as const;

/** The members of a ZIP archive by name, stored or deflated. */
async function unzipped(
  bytes: Buffer,
  file: string,
  maxBytes: number,
  tooLarge: string,
): Promise<Map<string, Uint8Array>> {
  const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
  if (end < 0 || end + END_BYTES > bytes.length || bytes.readUInt32LE(end) !== END)
    throw invalid(file, 'it is no .npz file');
  const members = new Map<string, Uint8Array>();
  let at = bytes.readUInt32LE(end + 16);
  let left = maxBytes;
  try {
    for (let count = bytes.readUInt16LE(end + 10); count > 0; count--) {
      if (bytes.readUInt32LE(at) !== ENTRY) throw invalid(file, "its directory can't be read");
      const [packed, size] = [bytes.readUInt32LE(at + 20), bytes.readUInt32LE(at + 24)];
      const [name, extra, comment] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field)) as [
        number,
        number,
        number,
      ];
      const local = bytes.readUInt32LE(at + 42);
      if (size > left) throw invalid(file, tooLarge);
      left -= size;
      if (bytes.readUInt32LE(local) !== LOCAL) throw invalid(file, "its directory can't be read");
      const from = local + LOCAL_BYTES + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
      const data = bytes.subarray(from, from + packed);
      const stored = bytes.readUInt16LE(at + 10) === 0;
      const whole = stored ? data : await promisify(inflateRaw)(data, { maxOutputLength: Math.max(1, size) });
      if (whole.length !== size) throw invalid(file, 'it ends too early');
      members.set(bytes.toString('utf8', at + ENTRY_BYTES, at + ENTRY_BYTES + name), whole);
      at += ENTRY_BYTES + name + extra + comment;
    }
  } catch (cause) {
    if (cause instanceof ResidualSkipError) throw cause;
    throw new ResidualSkipError('INVALID_DATA', `file ${file}: it is damaged, or larger than 4 GiB`, {
      cause,
    });
  }
  return members;
}
