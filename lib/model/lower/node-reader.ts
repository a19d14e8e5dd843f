import { type ErrorCode, ResidualSkipError } from '../../errors.js';
import type { Shape } from '../../numeric/shapes.js';
import { recalled } from '../../tensor/recall.js';
import type { TensorData } from '../../tensor/tensor.js';
import type { Sliced } from '../../util/slices.js';
import type { IrBranch } from '../program/ir.js';
import { NONE, type Value, type ValueId } from '../program/program.js';
import { type Constant, type Graph, isConstant, isGraph, type Node } from '../read/graph.js';
import { problemOf } from '../read/tensor-proto.js';
import type { FoldCache, LoweringBudget } from './fold.js';

/** Shapes and lists of a broken file may have any length. */
const LONGEST_PROBLEM = 2000;

/** Names that a graph gives to values; a subgraph's scope also sees the outer one. */
export class Scope {
  private readonly ids = new Map<string, ValueId>();

  constructor(private readonly outer?: Scope) {}

  get(name: string): ValueId | undefined {
    return this.ids.get(name) ?? this.outer?.get(name);
  }

  set(name: string, id: ValueId): void {
    this.ids.set(name, id);
  }
}

/** What all nodes of one specialisation share. */
export interface Lowering {
  readonly opset: number;
  readonly values: Value[];
  readonly cache: FoldCache;
  readonly budget: LoweringBudget;
  /**
   * Code of errors about shapes: the model is at fault for its own shapes, the caller for those that the model leaves
   * open.
   */
  readonly shapeError: Extract<ErrorCode, 'MODEL_INVALID' | 'INVALID_SHAPE'>;
  /** The steps whose results are constants, but stay bytes in the program, by those results. */
  readonly dequantised: Map<ValueId, () => TensorData>;
  /** The elements of each sequence, by the value that represents it. */
  readonly sequences: Map<ValueId, readonly ValueId[]>;
  /** Names of the recurrent nodes. */
  readonly recurrent: Set<string>;
  /** How many items of a batch are lowered at once; the condition of an If may be one bool for each of them. */
  readonly items: number;
  /** Lowers a subgraph inside `scope`. */
  readonly lowerBranch: (graph: Graph, scope: Scope) => Sliced<IrBranch>;
}

/** One ONNX node: typed access to its operands and attributes. */
export class NodeReader {
  constructor(
    readonly node: Node,
    readonly scope: Scope,
    readonly context: Lowering,
  ) {}

  get opset(): number {
    return this.node.opset ?? this.context.opset;
  }

  /** @throws ResidualSkipError the node contradicts itself, its operands' shapes or the specification */
  invalid(problem: string): never {
    throw this.error(this.context.shapeError, problem);
  }

  /** @throws ResidualSkipError the node needs something that is not implemented */
  unsupported(problem: string): never {
    throw this.error('UNSUPPORTED_MODEL', problem);
  }

  private error(code: ErrorCode, problem: string): ResidualSkipError {
    const shown = problem.length > LONGEST_PROBLEM ? `${problem.slice(0, LONGEST_PROBLEM)}...` : problem;
    return new ResidualSkipError(code, `node '${this.node.name}' (${this.node.op}): ${shown}`);
  }

  /** Refuses a shape that memory couldn't hold. */
  checkShape(shape: Shape): void {
    const problem = problemOf(shape);
    if (problem !== undefined) this.invalid(problem);
  }

  /** The operand, or NONE where it is absent. */
  optional(index: number): ValueId {
    const name = this.node.inputs[index] ?? '';
    if (name === '') return NONE;
    // Decoding has checked that every name is defined before its use.
    return this.scope.get(name)!;
  }

  input(index: number): ValueId {
    const id = this.optional(index);
    return id === NONE ? this.invalid(`its input ${index} is missing`) : id;
  }

  inputs(): ValueId[] {
    if (this.node.inputs.length === 0) this.invalid('it has no inputs');
    return this.node.inputs.map((_, index) => this.input(index));
  }

  /** An operand of float32 elements. */
  float(index: number): ValueId {
    const id = this.input(index);
    const { dtype } = this.value(id);
    return dtype === 'float32'
      ? id
      : this.unsupported(`its input ${index} is ${dtype}; only float is supported`);
  }

  value(id: ValueId): Value {
    return this.context.values[id]!;
  }

  shape(id: ValueId): Shape {
    return this.value(id).shape;
  }

  rank(id: ValueId): number {
    return this.shape(id).length;
  }

  /** The elements of an operand that decides the program and so must be known before any run. */
  constant(id: ValueId, what: string): Value & { readonly data: TensorData } {
    const value = this.value(id);
    if (!value.data) {
      this.unsupported(
        `its ${what} '${value.name}' ${this.context.budget.refused ? 'takes too long to be computed before a run' : "is computed from the input's elements"}; only constants are supported`,
      );
    }
    return { ...value, data: recalled(value.data) };
  }

  /** The elements of a constant, which may be one in bytes; undefined if they are computed in the run. */
  known(id: ValueId): TensorData | undefined {
    const { data } = this.value(id);
    return data ? recalled(data) : this.context.dequantised.get(id)?.();
  }

  integers(id: ValueId, what: string): number[] {
    const { dtype, data } = this.constant(id, what);
    if (dtype === 'bool' || dtype === 'float32') this.invalid(`its ${what} is ${dtype}; expected integers`);
    return Array.from(data as Iterable<number | bigint>, Number);
  }

  /** The elements of the operand `index`; undefined where it is absent. */
  optionalIntegers(index: number, what: string): number[] | undefined {
    const id = this.optional(index);
    return id === NONE ? undefined : this.integers(id, what);
  }

  /** The element of a one-element operand; undefined where it is absent. */
  optionalScalar(index: number, what: string): number | undefined {
    const id = this.optional(index);
    if (id === NONE) return undefined;
    const { data } = this.constant(id, what);
    if (data.length !== 1) this.invalid(`its ${what} has ${data.length} elements; expected one`);
    return Number(data[0]);
  }

  number(name: string, fallback: number): number {
    const value = this.node.attributes.get(name) ?? fallback;
    return typeof value === 'number' ? value : this.wrongAttribute(name);
  }

  string(name: string, fallback: string): string {
    const value = this.node.attributes.get(name) ?? fallback;
    return typeof value === 'string' ? value : this.wrongAttribute(name);
  }

  /** An attribute that is a list of integers; undefined where it is absent. */
  numbers(name: string): readonly number[] | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    const list = Array.isArray(value) ? (value as readonly (number | string)[]) : this.wrongAttribute(name);
    return list.every((item) => Number.isInteger(item)) ? (list as number[]) : this.wrongAttribute(name);
  }

  tensor(name: string): Constant | undefined {
    const value = this.node.attributes.get(name);
    return value === undefined || isConstant(value) ? value : this.wrongAttribute(name);
  }

  graph(name: string): Graph {
    const value = this.node.attributes.get(name);
    return value !== undefined && isGraph(value) ? value : this.wrongAttribute(name);
  }

  private wrongAttribute(name: string): never {
    this.invalid(`its attribute '${name}' is missing or has the wrong type`);
  }

  /** An axis made non-negative; `rank` is that of what it indexes. */
  axis(axis: number, rank: number): number {
    const resolved = axis < 0 ? axis + rank : axis;
    if (Number.isInteger(resolved) && resolved >= 0 && resolved < rank) return resolved;
    return this.invalid(`its axis ${axis} is outside a shape with ${rank} axes`);
  }

  /** Axes made non-negative, each once, in the given order. */
  axes(axes: readonly number[], rank: number): number[] {
    const resolved = axes.map((axis) => this.axis(axis, rank));
    if (new Set(resolved).size < resolved.length) this.invalid(`its axes [${axes}] name one axis twice`);
    return resolved;
  }
}
