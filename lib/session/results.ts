import type { Port, Program } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { decisionsIn } from '../skip/compiled-policy.js';
import { allocate, type DataType, type TensorData } from '../tensor/tensor.js';

/** The arrays that a run fills; see RunRequest. */
export interface Results {
  readonly items: number;
  readonly outputs: readonly TensorData[];
  readonly outcomes: Uint8Array;
  readonly scores: Float32Array;
}

/** V8 keeps typed arrays of up to this many bytes in its heap, where creating one costs almost nothing. */
const SMALL_BYTES = 64;

/** Results kept for reuse: as many as runs may overlap without allocating more. */
const KEPT = 16;

/** The shape of an output of a run of `items`. */
export function shapeOf({ value, batched }: Port, program: Program, items: number): readonly number[] {
  const { shape } = program.values[value]!;
  return batched ? [items, ...shape.slice(1)] : shape;
}

/** The type of an output's tensors. */
export function typeOf({ value, widened }: Port, program: Program): DataType {
  return widened ?? program.values[value]!.dtype;
}

/**
 * Reusable memory for the results of one program's runs: creating an ArrayBuffer takes longer than anything else
 * around a run. Outputs are reused only if all of them are small; the caller gets copies of those.
 */
export class ResultPool {
  readonly #free: Results[] = [];

  constructor(private readonly program: Program) {}

  take(items: number): Results {
    const last = this.#free.pop();
    if (last?.items === items) return areSmall(last.outputs) ? last : this.#withOutputs(last);
    // The next runs will probably have as many items as this one.
    this.#free.length = 0;
    const cells = items * decisionsIn(this.program);
    const decisions = new ArrayBuffer(5 * cells);
    const outcomes = new Uint8Array(decisions, 4 * cells);
    return this.#withOutputs({ items, outcomes, scores: new Float32Array(decisions, 0, cells) });
  }

  /** Called when the outputs are collected and nobody will read the trace. */
  giveBack(results: Results): void {
    if (this.#free.length < KEPT) this.#free.push(results);
  }

  #withOutputs({ items, outcomes, scores }: Omit<Results, 'outputs'>): Results {
    const outputs = this.program.outputs.map((port) => {
      const size = sizeOf(shapeOf(port, this.program, items));
      return allocate(this.program.values[port.value]!.dtype, size);
    });
    return { items, outputs, outcomes, scores };
  }
}

function areSmall(outputs: readonly TensorData[]): boolean {
  return outputs.every(({ byteLength }) => byteLength <= SMALL_BYTES);
}

/** Output number `index`, owned by the caller. */
export function keptOutput({ outputs }: Results, index: number): TensorData {
  const data = outputs[index]!;
  return areSmall(outputs) ? (data.slice() as TensorData) : data;
}
