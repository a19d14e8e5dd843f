import { ResidualSkipError } from '../errors.js';
import { outputsByBatch } from './batch-rules.js';
import { inputsBoundByValue } from './bound.js';
import type { Dimension, Graph, ModelPort } from './graph.js';
import type { Binding, Model, ModelInput } from './model.js';
import { type LoweredGraph, lowerGraph } from './specialize.js';

type Batching = Pick<Model, 'inputs' | 'outputs' | 'batching' | 'batchingReason'>;

/** Items in the trial batch: a prime, because few axes have that length. */
const TRIAL_BATCH = 3;

/**
 * Lengths to try for symbolic axes other than the batch; a model may accept only some of them. 1 is left out: a
 * reshape can merge an axis of length 1 with the batch.
 */
const TRIAL_LENGTHS = [224, 32, 64, 256, 299, 512, 16, 8, 28];

/**
 * Determines whether the items of a batch can run one by one: lowers the graph for one item and for several, and
 * checks that every step passes the batch axis from the inputs to the outputs unchanged.
 * @param runnable false for a graph that can't be lowered because parts of it are not implemented
 * @throws ResidualSkipError MODEL_INVALID, UNSUPPORTED_MODEL when the graph can't be lowered for any shape
 */
export function analyseBatching(graph: Graph, opset: number, runnable: boolean): Batching {
  const bound = inputsBoundByValue(graph);
  const inputs = graph.inputs.map((port) => ({
    ...port,
    batched: false,
    boundByValue: bound.has(port.name),
  }));
  const [first] = bound;
  if (!runnable) return whole(graph, inputs, 'parts of the model are not implemented');
  if (first !== undefined) {
    return whole(graph, inputs, `the elements of input '${first}' decide shapes or bounds`);
  }
  const unknown = graph.inputs.find(({ anyRank }) => anyRank);
  if (unknown) return whole(graph, inputs, `input '${unknown.name}' has no declared shape`);
  const batch = batchOf(graph);
  const open = graph.inputs.some(({ shape }) =>
    shape.some((dim) => typeof dim === 'string' && dim !== batch),
  );
  let failed: Batching | undefined;
  for (const length of open ? TRIAL_LENGTHS : [1]) {
    const lower = (items: number) =>
      attempt(() => {
        const binding = trialBinding(graph.inputs, batch, items, length);
        return lowerGraph(graph, opset, binding, 'MODEL_INVALID');
      });
    const one = lower(1);
    if (one instanceof ResidualSkipError) {
      if (!open || one.code === 'UNSUPPORTED_MODEL') throw one;
      continue;
    }
    const result = compare({ graph, inputs, batch, open, one, lowerMany: () => lower(TRIAL_BATCH) });
    if (result.batching === 'item') return result;
    failed ??= result;
  }
  return failed ?? whole(graph, inputs, 'no trial length of its symbolic axes fits the model');
}

interface Trial {
  readonly graph: Graph;
  readonly inputs: readonly ModelInput[];
  readonly batch: Dimension | undefined;
  /** Axes other than the batch have no fixed length. */
  readonly open: boolean;
  /** The graph lowered for one item. */
  readonly one: LoweredGraph;
  readonly lowerMany: () => LoweredGraph | ResidualSkipError;
}

function compare({ graph, inputs, batch, open, one, lowerMany }: Trial): Batching {
  const alone = (reason: string) => whole(graph, inputs, reason, one, open);
  if (batch === undefined) return alone('no input begins with an axis of length 1 or of any length');
  if (typeof batch === 'string' && graph.inputs.some(({ shape }) => shape.indexOf(batch, 1) > 0)) {
    return alone(`axis '${batch}' is also a later axis of an input`);
  }
  const many = lowerMany();
  if (many instanceof ResidualSkipError) {
    return alone(`a batch of ${TRIAL_BATCH} doesn't fit: ${many.message}`);
  }
  const carriers = graph.inputs.filter(({ shape }) => shape[0] === batch).map(({ name }) => name);
  const found = outputsByBatch(graph, one, many, TRIAL_BATCH, new Set(carriers));
  if ('reason' in found) return alone(found.reason);
  return {
    inputs: inputs.map((port) => ({ ...port, batched: carriers.includes(port.name) })),
    outputs: graph.outputs.map((port, i) => {
      const batched = found.batched[i]!;
      const shape = outputShape(port, one.values[one.outputs[i]!]!.shape, open);
      return { ...port, shape: batched ? shape.with(0, batch) : shape, batched };
    }),
    batching: 'item',
  };
}

/** The batch axis: the first symbolic leading axis of an input, or one of length 1. */
function batchOf(graph: Graph): Dimension | undefined {
  const leading = graph.inputs.map(({ shape }) => shape[0]);
  return leading.find((dim) => typeof dim === 'string') ?? leading.find((dim) => dim === 1);
}

function trialBinding(
  inputs: readonly ModelPort[],
  batch: Dimension | undefined,
  items: number,
  length: number,
): Binding {
  const concrete = (dim: Dimension, axis: number) => {
    if (axis === 0 && dim === batch) return items;
    return typeof dim === 'number' ? dim : dim === batch ? items : length;
  };
  return new Map(inputs.map(({ name, shape }) => [name, { shape: shape.map(concrete) }]));
}

function attempt<T>(action: () => T): T | ResidualSkipError {
  try {
    return action();
  } catch (error) {
    if (error instanceof ResidualSkipError) return error;
    throw error;
  }
}

/**
 * The declared shape if there is one; otherwise the shape that lowering found, with open lengths named after the
 * output.
 */
function outputShape(
  { name, shape }: ModelPort,
  found: readonly number[],
  open: boolean,
): readonly Dimension[] {
  if (shape.length === found.length) return shape;
  return found.map((length, axis) => (open ? `${name}.${axis}` : length));
}

function whole(
  graph: Graph,
  inputs: readonly ModelInput[],
  batchingReason: string,
  lowered?: LoweredGraph,
  open = true,
): Batching {
  const outputs = graph.outputs.map((port, i) => {
    const value = lowered?.values[lowered.outputs[i]!];
    return { ...port, shape: value ? outputShape(port, value.shape, open) : port.shape, batched: false };
  });
  return { inputs, outputs, batching: 'whole', batchingReason };
}
