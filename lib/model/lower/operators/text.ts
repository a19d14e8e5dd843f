/** Operators that transformers have, in 8 bits too, and that load when a graph has one of them. */
import { GENERATORS } from './generators.js';
import { INDEXING } from './indexing.js';
import type { Operator } from './operator.js';
import { QUANTIZED_LAYERS } from './quantized-layers.js';

const TABLE: ReadonlyMap<string, Operator> = new Map(
  Object.entries<Operator>({ ...GENERATORS, ...INDEXING, ...QUANTIZED_LAYERS }),
);

export function findTextOperator(op: string): Operator | undefined {
  return TABLE.get(op);
}
