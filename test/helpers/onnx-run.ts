import { InferenceSession, Tensor, type TensorMap } from 'lib/index.js';
import { loadModel } from 'lib/model/load.js';
import { specialize } from 'lib/model/lower/specialize.js';
import type { Ir, IrOp } from 'lib/model/program/ir.js';
import type { InputBinding, Model } from 'lib/model/read/model.js';
import { GraphBuilder, modelBytes } from './onnx-builder.js';
import { randomFloats } from './random.js';

/** The model of a graph. */
export function modelOf(graph: GraphBuilder, opset?: number): Promise<Model> {
  return loadModel(modelBytes(graph, opset));
}

/** Specialises a model on shapes in the order of its inputs; by default on the declared shapes. */
export function specializeOn(model: Model, ...shapes: readonly (readonly number[])[]): Ir {
  const binding = model.inputs.map(({ name, shape, batched }, i): [string, InputBinding] => {
    const declared = shape.map((dim, axis) => (batched && axis === 0 ? 1 : Number(dim)));
    return [name, { shape: shapes[i] ?? declared }];
  });
  return specialize(model, new Map(binding));
}

/** All operations; those of branches follow their conditional. */
export function allOps(ops: readonly IrOp[]): IrOp[] {
  return ops.flatMap((op) =>
    op.op === 'if' ? [op, ...allOps(op.branches.then.ops), ...allOps(op.branches.else.ops)] : [op],
  );
}

/** Names of all operations in order. */
export function opNames({ ops }: Ir): string[] {
  return allOps(ops).map(({ op }) => op);
}

/** Runs a graph. */
export async function runOnnx(
  graph: GraphBuilder,
  feeds: Record<string, Tensor>,
  opset?: number,
  backend: 'native' | 'reference' = 'reference',
): Promise<TensorMap> {
  const session = await InferenceSession.create(modelBytes(graph, opset), { backend });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** Outputs of one node on these operands, which are inputs of the graph; the operator is `domain.operator` for other domains. */
export async function runNode(
  op: string,
  operands: readonly (Tensor | undefined)[],
  attributes: Parameters<GraphBuilder['nodes']>[2] = {},
  outputs: readonly string[] = ['y'],
): Promise<{ dims: readonly number[]; data: number[] }[]> {
  const graph = new GraphBuilder();
  const at = op.lastIndexOf('.');
  const names = operands.map((tensor, i) =>
    tensor ? graph.input(`x${i}`, tensor.dims, tensor.type as 'float32') : '',
  );
  graph.nodes(op.slice(at + 1), names, attributes, { outputs, domain: op.slice(0, Math.max(at, 0)) });
  const kept = outputs.filter((name) => name !== '');
  for (const name of kept) graph.output(name);
  const feeds = Object.fromEntries(operands.flatMap((tensor, i) => (tensor ? [[`x${i}`, tensor]] : [])));
  const results = await runOnnx(graph, feeds, 23);
  return kept.map((name) => ({
    dims: results[name]!.dims,
    data: Array.from(results[name]!.data as Float32Array, Number),
  }));
}

export function randomTensor(shape: readonly number[], seed = 1): Tensor {
  return new Tensor(
    'float32',
    randomFloats(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  );
}

/** A tensor that counts up from 0. */
export function countingTensor(shape: readonly number[]): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return new Tensor(
    'float32',
    Float32Array.from({ length: size }, (_, i) => i),
    shape,
  );
}
