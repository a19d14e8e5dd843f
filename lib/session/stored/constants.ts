/** Programs without the elements of their constants, which lie in the model's file or in an entry's arrays. */
import type { Program, Value } from '../../model/program/program.js';
import { sizeOf } from '../../numeric/shapes.js';
import { placeOf, rereadable, type WeightFile } from '../../tensor/recall.js';
import { ARRAY_OF, contentOf, type TensorData } from '../../tensor/tensor.js';
import { digestOf } from './digest.js';
import type { Entry, ReadEntry } from './entry.js';

/** Where a constant's elements are: their offset in one of the model's files, or the index of an array. */
interface StoredValue extends Omit<Value, 'data'> {
  readonly offset?: number;
  /** The index of the file, where it isn't the model's own. */
  readonly file?: number;
  readonly array?: number;
}

export interface StoredProgram extends Omit<Program, 'values' | 'ownExits'> {
  readonly values: readonly StoredValue[];
  readonly ownExits?: Omit<NonNullable<Program['ownExits']>, 'values'> & {
    readonly values: readonly StoredValue[];
  };
}

/** Smaller arrays have memory of their own, whatever becomes of an entry's. */
const LARGE = 1 << 12;

/** One of the files that a stored program's constants are read from. */
export interface Weights {
  readonly file: WeightFile;
  /** The file's bytes, but for those of `left`. Constants lie in them. */
  readonly bytes: Uint8Array;
  /** Offsets of weights that are still in the file alone. */
  readonly left: ReadonlySet<number>;
}

/** The constants of a network's programs: equal ones are one array, since a backend packs a weight and its bias once for all programs. */
export class Constants {
  readonly #known = new Map<string, TensorData>();

  /** @param files the model's own, and those with weights of it */
  constructor(private readonly files: readonly WeightFile[]) {}

  /** The program with arrays that are known, where they are equal. */
  adopted(program: Program): Program {
    const adopt = (value: Value): Value => {
      const { data } = value;
      const known = data && this.#adopted(data);
      return known === data ? value : { ...value, data: known! };
    };
    const { ownExits } = program;
    return {
      ...program,
      values: program.values.map(adopt),
      ...(ownExits && { ownExits: { ...ownExits, values: ownExits.values.map(adopt) } }),
    };
  }

  encode(program: Program): Entry & { readonly data: StoredProgram } {
    const arrays: TensorData[] = [];
    const encode = ({ data, ...value }: Value): StoredValue => {
      if (!data) return value;
      const place = placeOf(data);
      if (place) {
        const file = this.files.indexOf(place.file);
        if (file < 0) throw new TypeError(`constant '${value.name}' is in no file of the model`);
        return { ...value, offset: place.offset, ...(file > 0 && { file }) };
      }
      if (data.constructor !== ARRAY_OF[value.dtype])
        throw new TypeError(`constant '${value.name}' is no ${value.dtype}`);
      const at = arrays.indexOf(data);
      return { ...value, array: at < 0 ? arrays.push(data) - 1 : at };
    };
    const { values, ownExits, ...others } = program;
    const data = {
      ...others,
      values: values.map(encode),
      ...(ownExits && { ownExits: { ...ownExits, values: ownExits.values.map(encode) } }),
    };
    return { data, arrays };
  }

  /** Throws a RangeError or a TypeError for what is no program of these weights. */
  decode({ data, arrays }: ReadEntry, weights: readonly Weights[]): Program {
    const made = new Map<number, TensorData>();
    const fromEntry = (index: number, { dtype, shape }: StoredValue): TensorData => {
      const known = made.get(index);
      if (known) return known;
      const { buffer, byteOffset, byteLength } = arrays[index]!;
      const view = new ARRAY_OF[dtype](buffer as ArrayBuffer, byteOffset, sizeOf(shape));
      if (view.byteLength !== byteLength) throw new RangeError('array of another length');
      const array = this.#adopted(byteLength < LARGE ? view.slice() : view);
      made.set(index, array);
      return array;
    };
    const decode = ({ offset, file = 0, array, ...value }: StoredValue): Value => {
      if (offset !== undefined) return { ...value, data: this.#inFile(offset, file, value, weights) };
      return array === undefined ? value : { ...value, data: fromEntry(array, value) };
    };
    const { values, ownExits, ...others } = data as StoredProgram;
    return {
      ...others,
      values: values.map(decode),
      ...(ownExits && { ownExits: { ...ownExits, values: ownExits.values.map(decode) } }),
    };
  }

  /**
   * Elements may begin anywhere in the file. In the model's own, they are moved to where an array may begin: less than the tag and length
   * before them. In others, what is before them may be other elements.
   */
  #inFile(
    offset: number,
    at: number,
    { dtype, shape }: StoredValue,
    weights: readonly Weights[],
  ): TensorData {
    const { file, bytes, left } = weights[at]!;
    const type = ARRAY_OF[dtype];
    const key = keyOfPlace(at, offset, type.name, sizeOf(shape));
    const known = this.#known.get(key);
    if (known) return known;
    const begin = offset - (offset % type.BYTES_PER_ELEMENT);
    const unread = left.has(offset);
    const inPlace = at === 0 || begin === offset;
    const data = inPlace
      ? new type(bytes.buffer as ArrayBuffer, bytes.byteOffset + begin, sizeOf(shape))
      : new type(sizeOf(shape));
    const end = offset + data.byteLength;
    if (!unread && inPlace) bytes.copyWithin(begin, offset, end);
    else if (!unread) new Uint8Array(data.buffer).set(bytes.subarray(offset, end));
    rereadable(data, { file, offset }, unread);
    this.#known.set(key, data);
    return data;
  }

  #adopted(data: TensorData): TensorData {
    const place = placeOf(data);
    const key = place
      ? keyOfPlace(this.files.indexOf(place.file), place.offset, data.constructor.name, data.length)
      : keyOfElements(data);
    const known = this.#known.get(key);
    if (!known) this.#known.set(key, data);
    return known ?? data;
  }
}

const keyOfPlace = (file: number, offset: number, type: string, length: number) =>
  `${type} ${length} at ${offset} of ${file}`;

function keyOfElements(data: TensorData): string {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  // A digest of what is small would take longer.
  const content = bytes.length < LARGE ? contentOf(bytes) : digestOf(bytes).toString('latin1');
  return `${data.constructor.name} ${bytes.length} ${content}`;
}
