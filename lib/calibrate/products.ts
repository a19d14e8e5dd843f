/**
 * Matrix products on a backend: its kernels are many times as fast as loops here, and give the same bits everywhere.
 */
import type { Backend } from '../backends/backend.js';
import { NO_ACTIVATION, NONE, type Port, type Program, type Value } from '../model/program.js';

/** A dense matrix, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array;
}

export interface ProductOptions {
  /** b is [n, k] instead of [k, n]. */
  readonly transposed?: boolean;
  /** Added to every row of the product. */
  readonly bias?: Float32Array;
  readonly relu?: boolean;
}

export function matrix(
  rows: number,
  columns: number,
  data: Float32Array = new Float32Array(rows * columns),
): Matrix {
  return { rows, columns, data };
}

const NOTHING = { modes: new Uint8Array(0), thresholds: new Float32Array(0) };
const RELU = { kind: 'relu', alpha: 0, beta: 0 } as const;

/** a [m, k] times b [k, n], in float32; blocks the calling thread. */
export function multiply(backend: Backend, a: Matrix, b: Matrix, options: ProductOptions = {}): Matrix {
  const { transposed = false, bias, relu = false } = options;
  const columns = transposed ? b.rows : b.columns;
  const result = matrix(a.rows, columns);
  const value = (name: string, { rows, columns: width }: Matrix, data?: Float32Array): Value => ({
    ...{ name, dtype: 'float32', shape: [rows, width], data },
  });
  // Copies: a worker may hold packed weights for a moment after `release`, a backend finds them again by their array, and
  // training changes its arrays in place.
  const values = [value('a', a), value('b', b, b.data.slice()), value('product', result)];
  if (bias) values.push({ name: 'bias', dtype: 'float32', shape: [columns], data: bias.slice() });
  const port = (index: number): Port => ({ name: values[index]!.name, value: index, batched: false });
  const program: Program = {
    values,
    inputs: [port(0)],
    outputs: [port(2)],
    steps: [
      {
        op: 'gemm',
        inputs: [0, 1, bias ? 3 : NONE, NONE],
        outputs: [2],
        attrs: { transB: transposed, act: relu ? RELU : NO_ACTIVATION },
      },
    ],
    blocks: [],
    batching: 'whole',
    cost: { multiplyAdds: 0, bytes: 0, layers: 0 },
  };
  const compiled = backend.compileSync(program);
  try {
    compiled.runSync({
      ...{ items: 1, inputs: [a.data], outputs: [result.data], policy: NOTHING },
      ...{ ran: new Uint8Array(0), scores: new Float32Array(0) },
    });
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
