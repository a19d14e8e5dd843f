import { type KernelStep, type KernelTensor, runStep } from '../../kernels/index.js';
import { sizeOf } from '../../numeric/shapes.js';
import { recalled } from '../../tensor/recall.js';
import { allocate, ELEMENT_BYTES, isBig, type TensorData, type ValueType } from '../../tensor/tensor.js';
import type { Value } from '../program/program.js';
import type { Attribute, Graph } from '../read/graph.js';

/** No step may take more elementary operations than this: nothing interrupts it. */
const MAX_WORK = 2 ** 26;
/** The same for a step that a run asks for: about a third of a second. */
const MAX_RUN_WORK = 2 ** 28;

/** An operation on a BigInt takes as long as so many on numbers. */
const BIGINT_WORK = 16;

/** Elementary operations that `count` elements of a type take. */
export function workFor(dtype: ValueType, count: number): number {
  return isBig(dtype) ? count * BIGINT_WORK : count;
}

/**
 * What lowering a model may spend, because a small file can ask for endless work: elementary operations and bytes of the constants that
 * it computes, and steps. A model with large weights may spend more.
 */
export class LoweringBudget {
  /** Whether something was too much. */
  refused = false;
  private readonly maxWork: number;
  private work: number;
  private bytes: number;
  private readonly maxSteps: number;
  /** What was computed within it: if it were collected meanwhile, it would be computed and counted again. */
  private readonly computed: TensorData[][] = [];
  /** Of this lowering, and of all. */
  private steps = 0;
  private allSteps: number;

  /**
   * @param lowerings how often all steps of the model may be lowered within the budget
   * @param inRun lowering computes what a run asks for, for which it may take longer
   */
  constructor(
    { elements, bytes }: FoldCache,
    lowerings = 1,
    readonly inRun = false,
  ) {
    this.maxWork = inRun ? MAX_RUN_WORK : MAX_WORK;
    this.work = inRun ? 2 ** 36 : 2 ** 26 + 16 * elements;
    this.bytes = inRun ? 2 ** 32 : 2 ** 27 + 16 * bytes;
    this.maxSteps = 2 ** 14 + bytes / 64;
    this.allSteps = lowerings * this.maxSteps;
  }

  /** False, and nothing spent, when there isn't enough left. */
  spend(work: number, bytes: number): boolean {
    const fits = work <= this.maxWork && work <= this.work && bytes <= this.bytes;
    this.refused ||= !fits;
    if (!fits) return false;
    this.work -= work;
    this.bytes -= bytes;
    return true;
  }

  /** Keeps a result until the budget itself is gone. */
  keep(results: TensorData[]): TensorData[] {
    this.computed.push(results);
    return results;
  }

  /** Begins another lowering. */
  begin(): void {
    this.steps = Math.min(this.maxSteps, this.allSteps);
  }

  /** For one step more. */
  spendStep(): boolean {
    this.allSteps--;
    return --this.steps >= 0;
  }
}

/**
 * Constants computed from a model's initialisers: one array for each, however often the model is specialised. They
 * are held weakly: an array lives as long as a program that uses it.
 */
export class FoldCache {
  private readonly ids = new WeakMap<TensorData, number>();
  private readonly results = new Map<string, WeakRef<TensorData>[]>();
  private nextId = 0;
  /** Of the model's own constants. */
  elements = 0;
  /** Of the model's own constants. */
  bytes = 0;

  constructor(graph: Graph) {
    this.ownConstants(graph);
  }

  /** True for data that doesn't depend on what the model is specialised for. */
  owns(data: TensorData): boolean {
    return this.ids.has(data);
  }

  /**
   * What `compute` returns, or what it returned before for this key and these inputs. Results are kept only when
   * the cache owns all inputs.
   */
  memoise<T extends TensorData[] | undefined>(
    keyOf: () => string,
    inputs: readonly TensorData[],
    compute: () => T,
  ): T | TensorData[] {
    const ids = inputs.map((data) => this.ids.get(data));
    if (ids.includes(undefined)) return compute();
    const fullKey = `${keyOf()}(${ids})`;
    const known = this.results.get(fullKey)?.map((reference) => reference.deref());
    if (known?.every((data) => data !== undefined)) return known;
    const results = compute();
    if (!results) return results;
    for (const data of results) this.own(data);
    this.results.set(
      fullKey,
      results.map((data) => new WeakRef(data)),
    );
    return results;
  }

  private own(data: TensorData): void {
    if (!this.ids.has(data)) this.ids.set(data, this.nextId++);
  }

  private ownConstant(data: TensorData): void {
    if (this.ids.has(data)) return;
    this.elements += data.length;
    this.bytes += data.byteLength;
    this.own(data);
  }

  private ownConstants(graph: Graph): void {
    graph.constants.forEach(({ data }) => {
      this.ownConstant(data);
    });
    const own = (attribute: Attribute) => {
      if (typeof attribute !== 'object') return;
      if ('data' in attribute) this.ownConstant(attribute.data);
      else if ('nodes' in attribute) this.ownConstants(attribute);
    };
    for (let n = 0; n < graph.nodes.length; n++) graph.nodes[n]!.attributes.forEach(own);
  }
}

const caches = new WeakMap<Graph, FoldCache>();

export function foldCacheOf(graph: Graph): FoldCache {
  const cache = caches.get(graph) ?? new FoldCache(graph);
  caches.set(graph, cache);
  return cache;
}

/** For each element that is sorted, and for each that a function or a sum takes. */
const SORT_WORK = 64;
const FUNCTION_WORK = 4;
/** How many copies of an element take as long as one operation. */
const COPIES = 4;

/** Rough count of elementary operations of a step. */
function workOf(
  step: KernelStep,
  inputs: readonly (Value | undefined)[],
  outputs: readonly Omit<Value, 'name'>[],
) {
  const size = (value: Omit<Value, 'name'> | undefined) =>
    value ? workFor(value.dtype, sizeOf(value.shape)) : 0;
  const result = size(outputs[0]);
  const [x, weight] = inputs;
  switch (step.op) {
    case 'conv':
      return (result * size(weight)) / (weight?.shape[0] || 1);
    case 'gemm':
    case 'matmul':
      return result * (x?.shape.at(-1) ?? 1);
    case 'pool':
      return result * sizeOf(step.attrs.kernel);
    case 'resample':
      return result * (inputs[1]?.shape[1] ?? 1);
    case 'topK':
      return SORT_WORK * size(x);
    case 'expand':
      return result / COPIES;
    case 'unary':
    case 'softmax':
      return FUNCTION_WORK * result;
    case 'reduce':
      return FUNCTION_WORK * size(x);
    default:
      return result + inputs.reduce((sum, input) => sum + size(input), 0);
  }
}

/** JSON with numbers that aren't finite, which it has as null. */
function textOf(value: unknown): string {
  const text = JSON.stringify(value);
  return text.includes('null') ? JSON.stringify(value, finite) : text;
}

function finite(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

/**
 * The data of a step's outputs if the budget allows for it; otherwise undefined. All of its inputs are constant. What was computed before
 * costs nothing.
 */
export function fold(
  cache: FoldCache,
  budget: LoweringBudget,
  step: KernelStep,
  inputs: readonly (Value | undefined)[],
  outputs: readonly Omit<Value, 'name'>[],
): TensorData[] | undefined {
  // Constants of bytes stay bytes until integer steps have been made.
  if (step.op === 'dequantize' && !budget.inRun) return undefined;
  if (step.op === 'reshape') return [inputs[0]!.data!];
  const bytes = outputs.reduce((sum, { dtype, shape }) => sum + sizeOf(shape) * ELEMENT_BYTES[dtype], 0);
  const allowed = () => budget.spend(workOf(step, inputs, outputs), bytes);
  return memoised(cache, step, inputs, outputs, (compute) =>
    allowed() ? budget.keep(compute()) : undefined,
  );
}

/** The data of a step's outputs; all of its inputs are constant. */
export function computed(
  cache: FoldCache,
  step: KernelStep,
  inputs: readonly (Value | undefined)[],
  outputs: readonly Omit<Value, 'name'>[],
): TensorData[] {
  return memoised(cache, step, inputs, outputs, (compute) => compute());
}

/** @param ask computes the step, or doesn't; it isn't called when the result is known */
function memoised<T extends TensorData[] | undefined>(
  cache: FoldCache,
  step: KernelStep,
  inputs: readonly (Value | undefined)[],
  outputs: readonly Omit<Value, 'name'>[],
  ask: (compute: () => TensorData[]) => T,
): T | TensorData[] {
  const data = inputs.flatMap((input) => (input ? [input.data!] : []));
  const keyOf = () => {
    const shapes = inputs.map((input) => input?.shape ?? 0);
    const types = outputs.map(({ dtype, shape }) => [dtype, shape]);
    return textOf([step.op, step.attrs, shapes, types]);
  };
  const compute = () => {
    const tensor = ({ dtype, shape }: Omit<Value, 'name'>, elements: TensorData): KernelTensor => ({
      dtype,
      shape,
      data: elements,
    });
    const results = outputs.map((output) => tensor(output, allocate(output.dtype, sizeOf(output.shape))));
    runStep(
      step,
      inputs.map((input) => input && tensor(input, recalled(input.data!))),
      results,
    );
    return results.map((result) => result.data);
  };
  return cache.memoise(keyOf, data, () => ask(compute));
}
