import { ACTIVATIONS } from './activations.js';
import { ATTENTION } from './attention.js';
import { CONTRIB } from './contrib.js';
import { CONTROL } from './control.js';
import { CONVOLUTION } from './convolution.js';
import { EINSUM } from './einsum.js';
import { ELEMENTWISE } from './elementwise.js';
import { GENERATORS } from './generators.js';
import { GRID_SAMPLE } from './grid-sample.js';
import { INDEXING } from './indexing.js';
import { LAYOUT } from './layout.js';
import { MATRIX } from './matrix.js';
import { NORMALIZATION } from './normalization.js';
import type { Operator } from './operator.js';
import { PACKED_WEIGHTS } from './packed-weights.js';
import { POOLING } from './pooling.js';
import { QUANTIZATION } from './quantization.js';
import { QUANTIZED_LAYERS } from './quantized-layers.js';
import { RECURRENT } from './recurrent.js';
import { REDUCTION } from './reduction.js';
import { RESIZE } from './resize.js';
import { ROTARY } from './rotary.js';
import { SCATTER } from './scatter.js';
import { SELECTION } from './selection.js';
import { SEQUENCES } from './sequences.js';
import { TRANSPOSED } from './transposed.js';

/** Every operator that is implemented. `Constant` isn't here: decoding makes a constant of it. */
const TABLE: ReadonlyMap<string, Operator> = new Map(
  Object.entries<Operator>({
    ...ACTIVATIONS,
    ...ATTENTION,
    ...CONTRIB,
    ...CONTROL,
    ...CONVOLUTION,
    ...EINSUM,
    ...ELEMENTWISE,
    ...GENERATORS,
    ...GRID_SAMPLE,
    ...INDEXING,
    ...LAYOUT,
    ...MATRIX,
    ...NORMALIZATION,
    ...POOLING,
    ...QUANTIZATION,
    ...QUANTIZED_LAYERS,
    ...PACKED_WEIGHTS,
    ...RECURRENT,
    ...REDUCTION,
    ...RESIZE,
    ...ROTARY,
    ...SCATTER,
    ...SELECTION,
    ...SEQUENCES,
    ...TRANSPOSED,
  }),
);

export function findOperator(op: string): Operator | undefined {
  return TABLE.get(op);
}

export type { Operator } from './operator.js';
