import { ACTIVATIONS } from './activations.js';
import { CONVOLUTION } from './convolution.js';
import { ELEMENTWISE } from './elementwise.js';
import { LAYOUT } from './layout.js';
import { MATRIX } from './matrix.js';
import { NORMALIZATION } from './normalization.js';
import type { Operator } from './operator.js';
import { POOLING } from './pooling.js';
import { QUANTIZATION } from './quantization.js';
import { findRareOperator } from './rare.js';
import { REDUCTION } from './reduction.js';
import { findTextOperator } from './text.js';

/** Operators that most networks have. `Constant` isn't among any: decoding makes a constant of it. */
const TABLE: ReadonlyMap<string, Operator> = new Map(
  Object.entries<Operator>({
    ...ACTIVATIONS,
    ...CONVOLUTION,
    ...ELEMENTWISE,
    ...LAYOUT,
    ...MATRIX,
    ...NORMALIZATION,
    ...POOLING,
    ...QUANTIZATION,
    ...REDUCTION,
  }),
);

export function findOperator(op: string): Operator | undefined {
  return TABLE.get(op) ?? findTextOperator(op) ?? findRareOperator(op);
}

export type { Operator } from './operator.js';
