import { ARRAY_OF, type DataType } from '../tensor/tensor.js';

function elements<T extends DataType>(type: T) {
  return { type, array: ARRAY_OF[type] } as const;
}

/**
 * The element types of the Open Inference Protocol (v2), by its names: the package's name for each, and the array that holds such
 * elements. BYTES, of encoded images and of labels, is no type of tensors.
 */
export const DATATYPES = {
  FP16: elements('float16'),
  FP32: elements('float32'),
  FP64: elements('float64'),
  INT8: elements('int8'),
  INT16: elements('int16'),
  INT32: elements('int32'),
  INT64: elements('int64'),
  UINT8: elements('uint8'),
  UINT16: elements('uint16'),
  UINT32: elements('uint32'),
  UINT64: elements('uint64'),
  BOOL: elements('bool'),
} as const;

/** A name of the protocol for elements of a tensor. */
export type Datatype = keyof typeof DATATYPES;

const BY_TYPE = new Map(
  Object.entries(DATATYPES).map(([datatype, { type }]) => [type as string, datatype as Datatype]),
);

/** The protocol's name for a type of this package; undefined for others. */
export function datatypeOf(type: string): Datatype | undefined {
  return BY_TYPE.get(type);
}
