/** Operators of fewer networks, which load when a graph has one of them. */
import { ATTENTION } from './attention.js';
import { CONTRIB } from './contrib.js';
import { CONTROL } from './control.js';
import { EINSUM } from './einsum.js';
import { GRID_SAMPLE } from './grid-sample.js';
import type { Operator } from './operator.js';
import { PACKED_WEIGHTS } from './packed-weights.js';
import { RECURRENT } from './recurrent.js';
import { RESIZE } from './resize.js';
import { ROTARY } from './rotary.js';
import { SCATTER } from './scatter.js';
import { SELECTION } from './selection.js';
import { SEQUENCES } from './sequences.js';
import { TRANSPOSED } from './transposed.js';

const TABLE: ReadonlyMap<string, Operator> = new Map(
  Object.entries<Operator>({
    ...ATTENTION,
    ...CONTRIB,
    ...CONTROL,
    ...EINSUM,
    ...GRID_SAMPLE,
    ...PACKED_WEIGHTS,
    ...RECURRENT,
    ...RESIZE,
    ...ROTARY,
    ...SCATTER,
    ...SELECTION,
    ...SEQUENCES,
    ...TRANSPOSED,
  }),
);

export function findRareOperator(op: string): Operator | undefined {
  return TABLE.get(op);
}
