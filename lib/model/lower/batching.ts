import { isDeepStrictEqual } from 'node:util';
import { ResidualSkipError } from '../../errors.js';
import type { Sliced } from '../../util/slices.js';
import type { Dimension, Graph, ModelPort } from '../read/graph.js';
import type { Binding, Model, ModelInput } from '../read/model.js';
import { separateItem } from './batch-proof.js';
import { differenceOf, type OneItem, oneItemOf, reasonInAny } from './batch-walk.js';
import { decidingInputs } from './bound.js';
import { foldCacheOf, LoweringBudget } from './fold.js';
import type { LoweredGraph } from './lowering.js';
import { findOperator } from './operators/index.js';
import { keepLowered, lowerGraph } from './specialize.js';

type Batching = Pick<Model, 'inputs' | 'outputs' | 'batching' | 'batchingReason' | 'loweredItems'>;

/** Items in the trial batches: primes, because few axes have such lengths. */
const TRIAL_BATCH = 3;
const SECOND_TRIAL_BATCH = 5;
/** How many batches of a file that takes only one are tried, and the largest. */
const TRACED_TRIALS = 8;
const MAX_TRACED = 1024;

/**
 * Lengths to try for symbolic axes other than the batch; a model may accept only some of them. 1 is left out: a
 * reshape can merge an axis of length 1 with the batch.
 */
const TRIAL_LENGTHS = [224, 32, 64, 256, 299, 512, 16, 8, 28];

/** What all trials together may spend. */
const MAX_LOWERINGS = 4;

/**
 * Determines whether the items of a batch can run one by one: lowers the graph for several and follows the batch axis from the
 * inputs to the outputs. What is then left for one item must not depend on the number of items.
 * @param runnable false for a graph that can't be lowered because parts of it are not implemented
 * @param mixes what mixes the items behind the graph, if anything does
 * @throws ResidualSkipError MODEL_INVALID, UNSUPPORTED_MODEL when the graph can't be lowered for any shape
 */
export function* analyseBatching(
  graph: Graph,
  opset: number,
  runnable: boolean,
  mixes?: string,
): Sliced<Batching> {
  const { needed, withChoices } = decidingInputs(graph);
  const given = { graph, opset, runnable, mixes };
  if (withChoices.size === needed.size) return yield* analyse(given, needed);
  // Of branches that an input chooses, one may not fit where the other does: which is known for fixed shapes only.
  if (hasOpenAxes(graph) || needed.size > 0) return yield* analyse(given, withChoices);
  const both = yield* attempt(analyse(given, needed));
  return both instanceof ResidualSkipError ? yield* analyse(given, withChoices) : both;
}

interface Given {
  readonly graph: Graph;
  readonly opset: number;
  readonly runnable: boolean;
  readonly mixes: string | undefined;
}

/** Whether an axis other than the batch has no fixed length. */
function hasOpenAxes(graph: Graph): boolean {
  const batch = batchOf(graph);
  return graph.inputs.some(({ shape }) => shape.some((dim) => typeof dim === 'string' && dim !== batch));
}

function* analyse({ graph, opset, runnable, mixes }: Given, bound: ReadonlySet<string>): Sliced<Batching> {
  const inputs = graph.inputs.map((port) => ({
    ...port,
    batched: false,
    boundByValue: bound.has(port.name),
  }));
  const [first] = bound;
  if (!runnable) return whole(graph, inputs, 'parts of the model are not implemented');
  if (first !== undefined) {
    return whole(graph, inputs, `the elements of input '${first}' decide shapes, bounds or branches`);
  }
  const unknown = graph.inputs.find(({ anyRank }) => anyRank);
  if (unknown) return whole(graph, inputs, `input '${unknown.name}' has no declared shape`);
  const batch = batchOf(graph);
  const open = hasOpenAxes(graph);
  let failed: Batching | undefined;
  const budget = new LoweringBudget(foldCacheOf(graph), MAX_LOWERINGS);
  for (const length of open ? TRIAL_LENGTHS : [1]) {
    const lower = function* (items: number) {
      const binding = trialBinding(graph.inputs, batch, items, length);
      const lowered = yield* attempt(lowerGraph(graph, opset, binding, 'MODEL_INVALID', { budget, items }));
      if (items === 1 && !open && 'ops' in lowered) keepLowered(graph, binding, lowered);
      return lowered;
    };
    const result = yield* tryBatches({ graph, opset, inputs, batch, open, mixes, lower });
    if (result instanceof ResidualSkipError) {
      if (open && result.code !== 'UNSUPPORTED_MODEL') continue;
      const traced = open ? undefined : yield* tracedBatch(graph, batch, lower);
      if (!traced) throw result;
      return yield* analyse({ graph: traced, opset, runnable, mixes }, bound);
    }
    failed ??= result.batching;
    if (result.batching.batching === 'item') return result.batching;
    if (result.always) break;
  }
  return failed ?? whole(graph, inputs, 'no trial length of its symbolic axes fits the model');
}

/** The graph with the only batch that it takes: a file may declare any, and hold shapes of the one that it was exported with. */
function* tracedBatch(
  graph: Graph,
  batch: Dimension | undefined,
  lower: Trial['lower'],
): Sliced<Graph | undefined> {
  if (typeof batch !== 'string') return undefined;
  for (const items of likelyBatches(graph)) {
    if ((yield* lower(items)) instanceof ResidualSkipError) continue;
    const inputs = graph.inputs.map((port) => ({
      ...port,
      shape: port.shape.map((dim) => (dim === batch ? items : dim)),
    }));
    return { ...graph, inputs };
  }
  return undefined;
}

/** Numbers of items that a graph's constants suggest: leading lengths of the shapes among them, and of recurrent states. */
function likelyBatches({ nodes, constants }: Graph): number[] {
  const counts = new Map<number, number>();
  const count = (length: number) => {
    if (length > 1 && length <= MAX_TRACED) counts.set(length, (counts.get(length) ?? 0) + 1);
  };
  for (const { op, inputs } of nodes) {
    for (const index of findOperator(op)?.constantInputs ?? []) {
      const { dtype, data } = constants.get(inputs[index] ?? '') ?? {};
      if (dtype === 'int64') for (const length of data!.slice(0, 2)) count(Number(length));
    }
  }
  for (const { shape } of constants.values()) if (shape.length === 3) count(shape[1]!);
  return [...counts.keys()].sort((a, b) => counts.get(b)! - counts.get(a)!).slice(0, TRACED_TRIALS);
}

interface Trial {
  readonly graph: Graph;
  readonly opset: number;
  readonly inputs: readonly ModelInput[];
  readonly batch: Dimension | undefined;
  /** Axes other than the batch have no fixed length. */
  readonly open: boolean;
  /** What mixes the items behind the graph. */
  readonly mixes: string | undefined;
  /** The graph lowered for a number of items. */
  readonly lower: (items: number) => Sliced<LoweredGraph | ResidualSkipError>;
}

/** What one length shows. */
interface Outcome {
  readonly batching: Batching;
  /** Whether other lengths show the same. */
  readonly always: boolean;
}

/** @returns the error when the graph can't be lowered at all */
function* tryBatches(trial: Trial): Sliced<Outcome | ResidualSkipError> {
  const { graph, opset, inputs, batch, open, mixes, lower } = trial;
  const fixed = typeof batch === 'number' && batch > 1;
  const declared = yield* lower(fixed ? batch : 1);
  const alone = (reason: string, always: boolean): Outcome | ResidualSkipError =>
    declared instanceof ResidualSkipError
      ? declared
      : { batching: whole(graph, inputs, reason, declared, open || typeof batch === 'string'), always };
  if (mixes !== undefined) return alone(mixes, true);
  if (batch === undefined) return alone('no input begins with an axis of length 1 or of any length', true);
  if (typeof batch === 'string' && graph.inputs.some(({ shape }) => shape.indexOf(batch, 1) > 0)) {
    return alone(`axis '${batch}' is also a later axis of an input`, true);
  }
  const carriers = new Set(graph.inputs.filter(({ shape }) => shape[0] === batch).map(({ name }) => name));
  const shown =
    fixed || declared instanceof ResidualSkipError
      ? undefined
      : separateItem(graph, opset, declared, carriers);
  if (shown) return itemByItem(trial, carriers, shown);
  const reason = declared instanceof ResidualSkipError ? undefined : reasonInAny(declared, carriers);
  if (reason !== undefined) return alone(reason, true);
  const many = fixed ? declared : yield* lower(TRIAL_BATCH);
  if (many instanceof ResidualSkipError) {
    return alone(`a batch of ${TRIAL_BATCH} doesn't fit: ${many.message}`, false);
  }
  const item = oneItemOf(many, fixed ? batch : TRIAL_BATCH, carriers);
  if ('reason' in item) return alone(item.reason, item.always);
  if (fixed) return itemByItem(trial, carriers, item, batch);
  const difference = declared instanceof ResidualSkipError ? declared.message : differenceOf(item, declared);
  if (difference === undefined) return itemByItem(trial, carriers, item);
  // A file for one item means what it says, also where Squeeze removes the batch axis of an output.
  if (batch === 1 && !sameOutputs(item, declared)) return alone(difference, false);
  // A batch of one may be a special case, as for Squeeze, which then loses the batch axis.
  const otherwiseSame = declared instanceof ResidualSkipError || !differenceOf(item, declared, true);
  const more = otherwiseSame ? yield* lower(SECOND_TRIAL_BATCH) : undefined;
  const second = more && 'ops' in more ? oneItemOf(more, SECOND_TRIAL_BATCH, carriers) : undefined;
  const independent = second && 'ops' in second && !differenceOf(item, second);
  return independent ? itemByItem(trial, carriers, item, TRIAL_BATCH) : alone(difference, false);
}

function sameOutputs(item: OneItem, declared: LoweredGraph | ResidualSkipError): boolean {
  if (declared instanceof ResidualSkipError) return false;
  const shapesOf = ({ values, outputs }: LoweredGraph) => outputs.map((id) => values[id]!.shape);
  return isDeepStrictEqual(shapesOf(item), shapesOf(declared));
}

function itemByItem(
  { graph, inputs, batch, open }: Trial,
  carriers: ReadonlySet<string>,
  { values, outputs, batched }: OneItem,
  loweredItems?: number,
): Outcome {
  const batching: Batching = {
    inputs: inputs.map((port) => ({ ...port, batched: carriers.has(port.name) })),
    outputs: graph.outputs.map((port, i) => {
      const shape = outputShape(port, values[outputs[i]!]!.shape, open);
      return { ...port, shape: batched[i] ? shape.with(0, batch!) : shape, batched: batched[i]! };
    }),
    batching: 'item',
    ...(loweredItems !== undefined && { loweredItems }),
  };
  return { batching, always: false };
}

/**
 * The batch axis: the first symbolic leading axis of an input, or one of length 1; or else the length with which all inputs of
 * several axes begin. A matrix of numbers may have any meaning, and its rows run faster together.
 */
function batchOf(graph: Graph): Dimension | undefined {
  const leading = graph.inputs.map(({ shape }) => shape[0]);
  const open = leading.find((dim) => typeof dim === 'string') ?? leading.find((dim) => dim === 1);
  if (open !== undefined) return open;
  const items = graph.inputs.filter(
    ({ shape, dtype }) => shape.length > 2 || (dtype === 'int64' && shape.length > 1),
  );
  const [fixed, ...others] = new Set(items.map(({ shape }) => shape[0]));
  return others.length === 0 ? fixed : undefined;
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

function* attempt<T>(work: Sliced<T>): Sliced<T | ResidualSkipError> {
  try {
    return yield* work;
  } catch (error) {
    if (error instanceof ResidualSkipError) return error;
    throw error;
  }
}

/**
 * The declared shape if there is one, without the names that exporters invent for lengths that they don't know; otherwise the
 * shape that lowering found, with open lengths named after the output.
 * @param open whether lengths may depend on those of the inputs
 */
function outputShape(
  { name, shape }: ModelPort,
  found: readonly number[],
  open: boolean,
): readonly Dimension[] {
  if (shape.length === found.length) {
    return open ? shape : shape.map((dim, axis) => (typeof dim === 'string' ? found[axis]! : dim));
  }
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
