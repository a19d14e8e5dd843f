import { ResidualSkipError, Tensor, toFloat32 } from 'residual-skip';
import {
  DATATYPES,
  type Datatype as TensorDatatype,
  datatypeOf as tensorDatatypeOf,
} from 'residual-skip/client';
import { ServerError } from '../errors.js';

/** BYTES is for encoded images and for answers of the classification extension; it has no tensor type here. */
export type Datatype = TensorDatatype | 'BYTES';

/** The protocol's name for a type of this package. */
export function datatypeOf(type: string): Datatype {
  const datatype = tensorDatatypeOf(type);
  if (datatype) return datatype;
  throw new ServerError('UNSUPPORTED', `output: its type ${type} can't be sent; request other outputs`);
}

function elementType(name: string, datatype: string): (typeof DATATYPES)[TensorDatatype] {
  if (Object.hasOwn(DATATYPES, datatype)) return DATATYPES[datatype as TensorDatatype];
  throw new ServerError(
    'INVALID_ARGUMENT',
    `input '${name}': its datatype ${datatype} is not supported; send ${Object.keys(DATATYPES).join(', ')}, or BYTES for encoded images`,
  );
}

/** Maximum number of axes of a tensor. */
export const MAX_AXES = 32;
/** Maximum number of files in an input. */
const MAX_FILES = 1024;

/** Number of elements; INVALID_ARGUMENT unless all dimensions are valid lengths. */
function elementsOf(name: string, shape: readonly number[]): number {
  if (shape.length > MAX_AXES) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `input '${name}': its shape has ${shape.length} axes; send at most ${MAX_AXES}`,
    );
  }
  const elements = shape.reduce((product, length) => product * length, 1);
  if (
    shape.every((length) => Number.isSafeInteger(length) && length >= 0) &&
    Number.isSafeInteger(elements)
  ) {
    return elements;
  }
  throw new ServerError(
    'INVALID_ARGUMENT',
    `input '${name}': its shape [${shape.join(', ')}] is not a list of lengths; give the number of elements along each axis`,
  );
}

/** Number of files that an input of this shape has; INVALID_ARGUMENT for an invalid one, TOO_LARGE for too many. */
function filesIn(name: string, shape: readonly number[]): number {
  const count = elementsOf(name, shape);
  if (count <= MAX_FILES) return count;
  throw new ServerError(
    'TOO_LARGE',
    `input '${name}': it has ${count} images or texts, and a request may have ${MAX_FILES}; send smaller batches`,
  );
}

/** Throws INVALID_ARGUMENT or TOO_LARGE unless an input of this shape has so many files. */
export function checkFiles(name: string, shape: readonly number[], received: number): void {
  const count = filesIn(name, shape);
  if (received === count) return;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `input '${name}': its shape [${shape.join(', ')}] is for ${count} images or texts, but it has ${received}; send as many`,
  );
}

/** A tensor from raw little-endian bytes in row-major order. Misaligned bytes are copied. */
export function tensorFromBytes(
  name: string,
  datatype: string,
  shape: readonly number[],
  bytes: Uint8Array,
): Tensor {
  const { type, array: Elements } = elementType(name, datatype);
  const width = Elements.BYTES_PER_ELEMENT;
  const elements = elementsOf(name, shape);
  if (bytes.byteLength !== elements * width) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `input '${name}': it has ${bytes.byteLength} bytes, but ${datatype} [${shape.join(', ')}] takes ${elements * width}; send as many`,
    );
  }
  // Not slice(): a Buffer's slice is a view.
  const aligned = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  const { buffer, byteOffset } = aligned;
  return guarded(name, () => {
    const data = new Elements(buffer as ArrayBuffer, byteOffset, elements);
    return new Tensor(type, data as Float32Array, shape);
  });
}

/** A tensor from the numbers or booleans of a JSON array, nested by shape or flat. */
export function tensorFromJson(
  name: string,
  datatype: string,
  shape: readonly number[],
  data: readonly unknown[],
): Tensor {
  const { type } = elementType(name, datatype);
  elementsOf(name, shape);
  const flat = elementsOfJson(name, shape, data);
  return guarded(name, () => new Tensor(type, flat as number[], shape));
}

/**
 * The elements of a JSON array, nested by shape or flat. Lists in lists say the shape once more: another one means other elements, such as
 * channels last.
 */
export function elementsOfJson(
  name: string,
  shape: readonly number[],
  data: readonly unknown[],
): readonly unknown[] {
  if (!Array.isArray(data[0])) return data;
  let rows: readonly unknown[] = [data];
  for (const [axis, length] of shape.entries()) {
    for (const row of rows) {
      if (Array.isArray(row) && row.length === length) continue;
      const found = Array.isArray(row) ? `a list of ${row.length}` : 'a single value';
      throw new ServerError(
        'INVALID_ARGUMENT',
        `input '${name}': its data has ${found} along axis ${axis} of the shape [${shape.join(', ')}]; nest lists as the shape says, or send a flat list`,
      );
    }
    rows = rows.flat();
  }
  return rows;
}

/** An error that the package finds in a tensor is an error of the request. */
function guarded(name: string, make: () => Tensor): Tensor {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof ResidualSkipError)) throw error;
    throw new ServerError('INVALID_ARGUMENT', `input '${name}': ${error.message}`, { cause: error });
  }
}

/** The elements as raw little-endian bytes, without a copy. */
export function bytesOf(tensor: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data;
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** The elements as JSON values. Clients that need exact 64-bit integers above 2^53 request binary data. */
export function jsonOf(tensor: Tensor): readonly (number | boolean)[] {
  if (tensor.type === 'bool') return Array.from(tensor.data, (value) => value !== 0);
  if (tensor.type === 'float16') return Array.from(toFloat32(tensor).data);
  return Array.from(tensor.data as ArrayLike<number | bigint>, Number);
}

/** Splits the binary form of BYTES elements: each follows its length, 4 little-endian bytes. */
export function splitBytes(name: string, shape: readonly number[], bytes: Uint8Array): Uint8Array[] {
  const count = filesIn(name, shape);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Uint8Array[] = [];
  let at = 0;
  while (parts.length < count && at + 4 <= bytes.length) {
    const length = view.getUint32(at, true);
    if (at + 4 + length > bytes.length) break;
    parts.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  if (parts.length === count && at === bytes.length) return parts;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `input '${name}': its bytes don't hold ${count} elements; send each after its length in 4 bytes`,
  );
}

/** The binary form of BYTES elements. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = Buffer.alloc(parts.reduce((sum, { length }) => sum + 4 + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.writeUInt32LE(part.length, at);
    joined.set(part, at + 4);
    at += 4 + part.length;
  }
  return joined;
}
