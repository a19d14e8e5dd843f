/** Functions of one number in a region, evaluated for all 256 bytes that it can be. */
import { activate } from '../../kernels/activation.js';
import { FLOAT_ROWS } from '../../kernels/float-rows.js';
import { sameShape } from '../../numeric/shapes.js';
import { fromBytes } from '../../tensor/constant-loops.js';
import type { ValueId } from '../program/program.js';
import { numbersOf, uniformly } from './quantised-value.js';
import type { Region, WorkOp, WorkStep } from './region.js';

/** Longest chain of steps that becomes a table. */
const CHAIN = 32;

/** The table that makes bytes which nothing else reads, and the bytes that it takes. */
export function tableOf(
  region: Region,
  id: ValueId,
): { readonly bytes: ValueId; readonly table: Uint8Array | Int8Array } | undefined {
  const lookup = region.usedOnce(id) ? region.producerOf(id, 'lookup') : undefined;
  const table = lookup && region.value(lookup.inputs[1]!).data;
  const known = table instanceof Uint8Array || table instanceof Int8Array;
  return known ? { bytes: lookup!.inputs[0]!, table } : undefined;
}

/** The steps that compute a value from the bytes of one other value and from single constants alone. */
export class Cone {
  readonly ops: WorkStep[] = [];
  /** The bytes that it is a function of. */
  source: ValueId | undefined;
  private readonly known = new Map<ValueId, Float32Array>();

  constructor(
    private readonly region: Region,
    private readonly end: ValueId,
  ) {}

  /** Its results for the 256 bytes; undefined when it is no such function, or other steps need what it computes on the way. */
  evaluate(): Float32Array | undefined {
    const numbers = this.numbers(this.end);
    const inside = new Set<WorkOp>(this.ops);
    const closed = this.ops.every(({ outputs: [y] }) => {
      if (y === this.end) return true;
      return !this.region.isOutput(y!) && this.region.users(y!).every((user) => inside.has(user));
    });
    return closed ? numbers : undefined;
  }

  private numbers(id: ValueId): Float32Array | undefined {
    const known = this.known.get(id);
    if (known) return known;
    const { data } = this.region.value(id);
    if (data instanceof Float32Array && data.length === 1) return new Float32Array(256).fill(data[0]!);
    const numbers = this.fromBytes(id) ?? this.fromStep(id);
    if (numbers) this.known.set(id, numbers);
    return numbers;
  }

  private fromBytes(id: ValueId): Float32Array | undefined {
    const found = uniformly(this.region, id);
    if (!found) return undefined;
    const constant = this.region.value(found.bytes).data;
    if (constant?.length === 1) {
      return new Float32Array(256).fill(
        Math.fround(Number(constant[0]) - found.term.zero) * found.term.factor,
      );
    }
    const before = this.region.usedOnce(id) ? tableOf(this.region, found.bytes) : undefined;
    const bytes = before?.bytes ?? found.bytes;
    if (this.source !== undefined && this.source !== bytes) return undefined;
    this.source = bytes;
    const { zero, factor } = found.term;
    return before ? fromBytes(before.table, zero, factor) : numbersOf(found.dtype, found.term);
  }

  private fromStep(id: ValueId): Float32Array | undefined {
    const op = this.region.producer(id);
    if ((op?.op !== 'unary' && op?.op !== 'binary') || this.ops.length === CHAIN) return undefined;
    const { shape, dtype } = this.region.value(id);
    const inputs = op.inputs.map((input) => this.numbers(input));
    const alike = op.inputs.some((input) => sameShape(this.region.shape(input), shape));
    if (dtype !== 'float32' || !alike || inputs.some((input) => !input)) return undefined;
    const [a, b] = inputs as [Float32Array, Float32Array];
    const y = new Float32Array(256);
    if (op.op === 'unary') activate(a, y, 256, op.attrs.act);
    else {
      FLOAT_ROWS[op.attrs.kind](a, 0, 1, b, 0, 1, y, 0, 256);
      activate(y, y, 256, op.attrs.act);
    }
    this.ops.push(op);
    return y;
  }
}
