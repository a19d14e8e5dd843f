import { ACTIVATIONS } from './activations.js';
import { CONTROL } from './control.js';
import { CONVOLUTION } from './convolution.js';
import { ELEMENTWISE } from './elementwise.js';
import { GENERATORS } from './generators.js';
import { INDEXING } from './indexing.js';
import { LAYOUT } from './layout.js';
import { MATRIX } from './matrix.js';
import { NORMALIZATION } from './normalization.js';
import type { Operator, OperatorTable } from './operator.js';
import { POOLING } from './pooling.js';
import { QUANTIZATION } from './quantization.js';
import { REDUCTION } from './reduction.js';

/** Every operator that is implemented. `Constant` isn't here: decoding makes a constant of it. */
const TABLE: OperatorTable = {
  ...ACTIVATIONS,
  ...CONTROL,
  ...CONVOLUTION,
  ...ELEMENTWISE,
  ...GENERATORS,
  ...INDEXING,
  ...LAYOUT,
  ...MATRIX,
  ...NORMALIZATION,
  ...POOLING,
  ...QUANTIZATION,
  ...REDUCTION,
};

export function findOperator(op: string): Operator | undefined {
  return Object.hasOwn(TABLE, op) ? TABLE[op] : undefined;
}

export type { Operator } from './operator.js';
