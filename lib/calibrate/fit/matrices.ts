/**
 * Matrix products on a backend: its kernels are many times as fast as loops here, and give the same bits everywhere.
 */
import type { Backend } from '../../backends/backend.js';
import {
  type Activation,
  type BinaryKind,
  NO_ACTIVATION,
  type Port,
  type Step,
  type Value,
  type ValueId,
} from '../../model/program/program.js';

/** A dense matrix, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array;
}

export interface ProductOptions {
  /** a is [k, m] instead of [m, k]. */
  readonly turned?: boolean;
  /** b is [n, k] instead of [k, n]. */
  readonly transposed?: boolean;
  /** Added to every row of the product. */
  readonly bias?: Float32Array;
}

export function matrix(
  rows: number,
  columns: number,
  data: Float32Array = new Float32Array(rows * columns),
): Matrix {
  return { rows, columns, data };
}

const NOTHING = { modes: new Uint8Array(0), thresholds: new Float32Array(0) };
export const RELU: Activation = { kind: 'relu', alpha: 0, beta: 0 };

/** Steps over matrices: a program without blocks. */
export class Steps {
  readonly #values: Value[] = [];
  readonly #steps: Step[] = [];

  /** A value that is given for each run, or a constant where there is `data`. */
  given(shape: readonly number[], data?: Float32Array): ValueId {
    return this.#values.push({ name: `value${this.#values.length}`, dtype: 'float32', shape, data }) - 1;
  }

  /** The result of a step. */
  add(
    step: Pick<Step, 'op' | 'inputs' | 'attrs'>,
    shape: readonly number[],
    dtype: Value['dtype'] = 'float32',
  ): ValueId {
    const result = this.#values.push({ name: `value${this.#values.length}`, dtype, shape }) - 1;
    this.#steps.push({ ...step, outputs: [result] } as Step);
    return result;
  }

  /** a [m, k] times b [k, n]. */
  product(a: ValueId, b: ValueId): ValueId {
    const shape = [this.#shape(a)[0]!, this.#shape(b)[1]!];
    return this.add({ op: 'matmul', inputs: [a, b], attrs: {} }, shape);
  }

  transpose(a: ValueId): ValueId {
    const attrs = { perm: [1, 0] };
    return this.add({ op: 'transpose', inputs: [a], attrs }, [...this.#shape(a)].reverse());
  }

  /** @param b the shape of a, or a row or number for all of it */
  binary(kind: BinaryKind, a: ValueId, b: ValueId, act: Activation = NO_ACTIVATION): ValueId {
    return this.add({ op: 'binary', inputs: [a, b], attrs: { kind, act } }, this.#shape(a));
  }

  columnSums(a: ValueId): ValueId {
    return this.add({ op: 'reduce', inputs: [a], attrs: { kind: 'sum', axes: [0] } }, [this.#shape(a)[1]!]);
  }

  #shape(id: ValueId): readonly number[] {
    return this.#values[id]!.shape;
  }

  compile(backend: Backend, inputs: readonly ValueId[], outputs: readonly ValueId[]): CompiledSteps {
    const port = (value: ValueId): Port => ({ name: this.#values[value]!.name, value, batched: false });
    const compiled = backend.compileSync({
      ...{ values: this.#values, inputs: inputs.map(port), outputs: outputs.map(port) },
      ...{ steps: this.#steps, blocks: [], exits: [], batching: 'whole' },
      cost: { multiplyAdds: 0, bytes: 0, layers: 0 },
    });
    return {
      run: (given, results) =>
        compiled.runSync({
          ...{ items: 1, inputs: given, outputs: results, policy: NOTHING },
          ...{ outcomes: new Uint8Array(0), scores: new Float32Array(0) },
        }),
      release: () => compiled.release(),
    };
  }
}

/** Runs on the calling thread. */
export interface CompiledSteps {
  run(inputs: readonly Float32Array[], outputs: readonly Float32Array[]): void;
  release(): void;
}

/** a [m, k] times b [k, n], in float32; blocks the calling thread. */
export function multiply(
  backend: Backend,
  a: Matrix,
  b: Matrix,
  { turned = false, transposed = false, bias }: ProductOptions = {},
): Matrix {
  const steps = new Steps();
  const [left, right] = [a, b].map(({ rows, columns }) => steps.given([rows, columns])) as [ValueId, ValueId];
  let made = steps.product(
    turned ? steps.transpose(left) : left,
    transposed ? steps.transpose(right) : right,
  );
  if (bias) made = steps.binary('add', made, steps.given([bias.length], bias));
  const compiled = steps.compile(backend, [left, right], [made]);
  const result = matrix(turned ? a.columns : a.rows, transposed ? b.rows : b.columns);
  try {
    compiled.run([a.data, b.data], [result.data]);
  } finally {
    compiled.release();
  }
  return result;
}

export function transpose({ rows, columns, data }: Matrix): Matrix {
  const result = matrix(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result.data[j * rows + i] = data[i * columns + j]!;
  }
  return result;
}
