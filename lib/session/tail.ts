/** The stages of a model behind its program: what depends on lengths that only a run knows. See `splitGraph`. */
import { type Backend, type CompiledProgram, requestFor } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import { building } from '../model/compile.js';
import { foldCacheOf, LoweringBudget } from '../model/lower/fold.js';
import { lowerGraph } from '../model/lower/specialize.js';
import type { Port, Program } from '../model/program/program.js';
import type { Graph } from '../model/read/graph.js';
import type { InputBinding, Model } from '../model/read/model.js';
import { BlockMode, decisionsFor } from '../skip/compiled-policy.js';
import type { TensorMap } from '../skip/observer.js';
import { asType, Tensor, type TensorData, type ValueType } from '../tensor/tensor.js';
import { LruMap } from '../util/lru-map.js';
import { atOnce, inTurns, type Sliced } from '../util/slices.js';
import type { EndedRun } from './run.js';

/** Programs of one stage that are kept: each has its own copy of the weights. */
const CAPACITY = 2;

/** A value with its elements, as programs have it. */
interface Known {
  readonly dtype: ValueType;
  readonly shape: readonly number[];
  readonly data: TensorData;
}
type Values = Map<string, Known>;

interface Prepared {
  readonly program: Program;
  readonly compiled: CompiledProgram;
}

/** What is known then, by the graph's names. */
function knownOf({ inputs }: Model, { program, tensors, outputs }: EndedRun): Values {
  const given = inputs.map(({ name, dtype }): [string, Known] => {
    const { data, dims } = tensors[name]!;
    return [name, { dtype, shape: dims, data }];
  });
  const made = program.outputs.map(({ name, value }, index): [string, Known] => {
    const { dtype, shape } = program.values[value]!;
    return [name, { dtype, shape, data: outputs[index]! }];
  });
  return new Map([...given, ...made]);
}

export async function openTail(model: Model, backend: Backend): Promise<Tail> {
  return new Tail(model, backend);
}

/** Runs the stages of one model. */
export class Tail {
  readonly #programs = new Map<Graph, LruMap<Prepared>>();

  constructor(
    private readonly model: Model,
    private readonly backend: Backend,
  ) {}

  /** All outputs of the model. */
  async run(before: EndedRun): Promise<TensorMap> {
    const values = knownOf(this.model, before);
    const { signal } = before;
    for (const { isProgram, graph } of this.model.stages ?? []) {
      if (signal?.aborted) {
        throw new ResidualSkipError('ABORTED', 'run: it was aborted', { cause: signal.reason });
      }
      if (!isProgram || readsNothing(graph, values)) {
        await inTurns(lowered(this.model, graph, values));
        continue;
      }
      const found = this.#find(graph, values);
      const program = found?.program ?? (await inTurns(programOf(this.model, graph, values)));
      const { compiled } = found ?? this.#keep(graph, values, program, await this.backend.compile(program));
      const request = requestOf(program, values);
      await compiled.run({ ...request, signal });
      collect(program, request.outputs, values);
    }
    return this.#answers(values);
  }

  /** The same on the calling thread. */
  runSync(before: EndedRun): TensorMap {
    const values = knownOf(this.model, before);
    for (const { isProgram, graph } of this.model.stages ?? []) {
      if (!isProgram || readsNothing(graph, values)) {
        atOnce(lowered(this.model, graph, values));
        continue;
      }
      const found = this.#find(graph, values);
      const program = found?.program ?? atOnce(programOf(this.model, graph, values));
      const { compiled } = found ?? this.#keep(graph, values, program, this.backend.compileSync(program));
      const request = requestOf(program, values);
      compiled.runSync(request);
      collect(program, request.outputs, values);
    }
    return this.#answers(values);
  }

  release(): void {
    for (const programs of this.#programs.values()) programs.clear();
  }

  #find(graph: Graph, values: Values): Prepared | undefined {
    return this.#programs.get(graph)?.get(keyOf(graph, values));
  }

  #keep(graph: Graph, values: Values, program: Program, compiled: CompiledProgram): Prepared {
    const programs =
      this.#programs.get(graph) ?? new LruMap<Prepared>(CAPACITY, (made) => made.compiled.release());
    this.#programs.set(graph, programs);
    const key = keyOf(graph, values);
    const other = programs.peek(key);
    if (other) {
      // An overlapping run has made the same.
      compiled.release();
      return other;
    }
    const made = { program, compiled };
    programs.set(key, made);
    return made;
  }

  #answers(values: Values): TensorMap {
    const outputs = this.model.outputs.map(({ name, widened }) => {
      const { dtype, shape, data } = values.get(name)!;
      const type = widened && dtype === 'float32' ? widened : dtype;
      return [name, new Tensor(type, asType(type, data), shape)];
    });
    return Object.fromEntries(outputs);
  }
}

const keyOf = ({ inputs }: Graph, values: Values) =>
  inputs.map(({ name }) => values.get(name)!.shape.join()).join(';');

const readsNothing = ({ inputs }: Graph, values: Values) =>
  inputs.some(({ name }) => values.get(name)!.data.length === 0);

/** Computes a stage by lowering it for inputs with known elements. */
function* lowered({ opset }: Model, graph: Graph, values: Values): Sliced<void> {
  const binding = new Map(graph.inputs.map(({ name }): [string, InputBinding] => [name, values.get(name)!]));
  const budget = new LoweringBudget(foldCacheOf(graph), 1, true);
  const made = yield* lowerGraph(graph, opset, binding, 'INVALID_SHAPE', { budget });
  for (const [i, { name }] of graph.outputs.entries()) {
    const { dtype, shape, data } = made.values[made.outputs[i]!]!;
    if (!data) {
      const message = `model: '${name}' can't be computed behind operators whose results have any length: it takes too long`;
      throw new ResidualSkipError('UNSUPPORTED_MODEL', message);
    }
    values.set(name, { dtype, shape, data });
  }
}

/** The program of a stage for inputs of these shapes. */
function* programOf({ opset }: Model, graph: Graph, values: Values): Sliced<Program> {
  const binding = new Map(
    graph.inputs.map(({ name }): [string, InputBinding] => {
      const { dtype, shape } = values.get(name)!;
      return [name, { dtype, shape }];
    }),
  );
  const made = yield* lowerGraph(graph, opset, binding, 'INVALID_SHAPE');
  const port = (name: string, value: number): Port => ({ name, value, batched: false });
  return yield* building({
    values: made.values,
    inputs: [...made.inputs].map(([name, value]) => port(name, value)),
    outputs: graph.outputs.map(({ name }, i) => port(name, made.outputs[i]!)),
    ops: made.ops,
    batching: 'whole',
  });
}

/** Every block runs. */
function requestOf(program: Program, values: Values) {
  const decisions = decisionsFor(program, () => BlockMode.run);
  return {
    ...requestFor(program, 1, decisions),
    inputs: program.inputs.map(({ name }) => values.get(name)!.data),
  };
}

function collect(program: Program, outputs: readonly TensorData[], values: Values): void {
  for (const [i, { name, value }] of program.outputs.entries()) {
    const { dtype, shape } = program.values[value]!;
    values.set(name, { dtype, shape, data: outputs[i]! });
  }
}
