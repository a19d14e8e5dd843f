import type { TensorData, ValueType } from '../tensor.js';
import { insertSteps } from './insert.js';
import type { Port, Program, Step, Term, Value, ValueId } from './program.js';

/** A program and the values, outputs and steps to add to it. */
export class Growth {
  readonly #values: Value[];
  readonly #outputs: Port[] = [];
  readonly #insertions = new Map<number, Step[]>();

  constructor(readonly program: Program) {
    this.#values = [...program.values, ...(program.exits?.values ?? [])];
  }

  valueOf(id: ValueId): Value {
    return this.#values[id]!;
  }

  value(name: string, dtype: ValueType, shape: readonly number[], data?: TensorData, term?: Term): ValueId {
    this.#values.push({ name, dtype, shape, data, ...(term && { term }) });
    return this.#values.length - 1;
  }

  constant(name: string, data: Float32Array, shape: readonly number[]): ValueId {
    return this.value(name, 'float32', shape, data);
  }

  /** Adds `value`, which has a slice for each item, to the program's outputs. */
  output(name: string, value: ValueId): void {
    this.#outputs.push({ name, value, batched: this.program.batching === 'item' });
  }

  /** Inserts steps before step `at` of the program, after those inserted there earlier; see insertSteps. */
  insert(at: number, steps: readonly Step[]): void {
    this.#insertions.set(at, [...(this.#insertions.get(at) ?? []), ...steps]);
  }

  build(): Program {
    const { program } = this;
    return {
      ...insertSteps(program, this.#insertions),
      values: this.#values,
      outputs: [...program.outputs, ...this.#outputs],
      ...(program.exits && { exits: { ...program.exits, values: [] } }),
    };
  }
}
