import type { TensorData, ValueType } from '../../tensor/tensor.js';
import { insertSteps } from './insert.js';
import type { Exit, Port, Program, Step, Term, Value, ValueId } from './program.js';

/** What an exit needs besides its steps. */
export type ExitDraft = Omit<Exit, 'first' | 'end'>;

/** A program and the values, outputs, steps and exits to add to it. */
export class Growth {
  readonly #values: Value[];
  readonly #outputs: Port[] = [];
  readonly #insertions = new Map<number, Step[]>();
  /** Where each exit was inserted, and which of the steps inserted there are its own. */
  readonly #exits: {
    readonly draft: ExitDraft;
    readonly at: number;
    readonly from: number;
    readonly to: number;
  }[] = [];

  constructor(readonly program: Program) {
    this.#values = [...program.values, ...(program.ownExits?.values ?? [])];
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

  /** Adds `value`, which has a slice for each item, to the program's outputs. Returns its index among them. */
  output(name: string, value: ValueId): number {
    this.#outputs.push({ name, value, batched: this.program.batching === 'item' });
    return this.program.outputs.length + this.#outputs.length - 1;
  }

  /** Inserts steps before step `at` of the program, after those inserted there earlier; see insertSteps. */
  insert(at: number, steps: readonly Step[]): void {
    this.#insertions.set(at, [...(this.#insertions.get(at) ?? []), ...steps]);
  }

  /** Inserts the steps of an exit in the same way. Exits must be added in order. */
  insertExit(at: number, steps: readonly Step[], draft: ExitDraft): void {
    const from = this.#insertions.get(at)?.length ?? 0;
    this.insert(at, steps);
    this.#exits.push({ draft, at, from, to: from + steps.length });
  }

  build(): Program {
    const { program: grown, begins } = insertSteps(this.program, this.#insertions);
    const { outputs, ownExits } = this.program;
    return {
      ...grown,
      values: this.#values,
      outputs: [...outputs, ...this.#outputs],
      exits: this.#exits.map(({ draft, at, from, to }) => ({
        ...draft,
        first: begins[at]! + from,
        end: begins[at]! + to,
      })),
      ...(ownExits && { ownExits: { ...ownExits, values: [] } }),
    };
  }
}
