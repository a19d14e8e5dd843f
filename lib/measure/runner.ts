import type { Precision } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { allocate, type DataType, isBig, type TensorData } from '../tensor/tensor.js';

/** One float32 input batch, the same for every runner. */
export interface BenchInput {
  readonly name: string;
  readonly type: DataType;
  readonly data: TensorData;
  readonly dims: readonly number[];
}

/** The configuration of every runner. `model` is the path of the ONNX file. */
export interface RunnerConfig {
  readonly runner: string;
  readonly model: string;
  readonly threads: number;
  readonly isa?: string;
  readonly precision?: Precision | undefined;
  /** Seed and shapes of the inputs; each process generates the same ones. */
  readonly inputs: readonly { name: string; type: DataType; dims: readonly number[] }[];
  /** Folders whose node_modules may hold the peers, in order. */
  readonly peerFolders: readonly string[];
}

/** A model loaded by one runtime. `run` resolves when the outputs of one batch are ready. */
export interface Runner {
  readonly version: string;
  run(): Promise<void>;
}

/** A runtime with its modules and libraries loaded, which doesn't count as loading the model. */
export interface Runtime {
  load(): Promise<Runner>;
}

/**
 * Inputs in [-1, 1) from a fixed linear congruential generator (Numerical Recipes' constants); whole numbers are 0 or 1. An attention
 * mask has ones only, as that of one text.
 */
export function benchInputs(config: Pick<RunnerConfig, 'inputs'>): BenchInput[] {
  let state = 20250301;
  return config.inputs.map(({ name, type, dims }) => {
    const size = sizeOf(dims);
    const values = Float32Array.from({ length: size }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return name === 'attention_mask' ? 1 : state / 2 ** 31 - 1;
    });
    return { name, type, dims, data: convert(values, type) };
  });
}

function convert(values: Float32Array, type: DataType): TensorData {
  if (type === 'float32') return values;
  const data = allocate(type, values.length);
  for (const [i, value] of values.entries()) {
    const bit = value > 0 ? 1 : 0;
    data[i] = isBig(type) ? BigInt(bit) : bit;
  }
  return data;
}
