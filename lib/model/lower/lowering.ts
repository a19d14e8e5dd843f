import { type Shape, sameShape } from '../../numeric/shapes.js';
import { ELEMENT_BYTES, type TensorData, type ValueType } from '../../tensor/tensor.js';
import type { IrBranch, IrOp, IrStep, LoweredIr } from '../program/ir.js';
import { NONE, type StepNamed, type Value, type ValueId } from '../program/program.js';
import type { Node } from '../read/graph.js';
import { computed, fold, workFor } from './fold.js';
import { type Lowering, NodeReader, type Scope } from './node-reader.js';

/** A graph lowered for concrete input shapes. */
export interface LoweredGraph extends Pick<LoweredIr, 'firsts'> {
  readonly values: Value[];
  readonly ops: readonly IrOp[];
  /** Inputs that are fed at run time; those bound by value have become constants. */
  readonly inputs: ReadonlyMap<string, ValueId>;
  readonly outputs: readonly ValueId[];
  readonly recurrent: ReadonlySet<string>;
  /** The values that have names in the graph. */
  readonly scope: Scope;
}

export type OutputType = Pick<Value, 'dtype' | 'shape'>;

/** One ONNX node during lowering: what it reads, and the steps it becomes. */
export class NodeLowering extends NodeReader {
  private made = 0;
  private prefix: string | undefined;

  constructor(
    node: Node,
    scope: Scope,
    context: Lowering,
    private readonly ops: IrOp[],
  ) {
    super(node, scope, context);
  }

  /** A float32 constant of one element that doesn't depend on shapes. */
  scalar(value: number): ValueId {
    const [data] = this.context.cache.memoise(
      () => `scalar ${value}`,
      [],
      () => [Float32Array.of(value)],
    );
    return this.constantOf('float32', [], data!);
  }

  /**
   * To be called before an operator makes a constant of `count` elements by itself.
   * @param work elementary operations for each
   * @throws ResidualSkipError the model asks for more than may be computed before a run
   */
  afford(dtype: ValueType, count: number, work = 1): void {
    const fits = this.context.budget.spend(workFor(dtype, work * count), count * ELEMENT_BYTES[dtype]);
    if (!fits)
      this.invalid(
        `it has too many elements (${count}) to be computed before a run, beside those of the nodes before it`,
      );
  }

  /** A new value without a producer: constant data. */
  constantOf(dtype: ValueType, shape: Shape, data: TensorData): ValueId {
    return this.define({ dtype, shape }, data);
  }

  /**
   * Counts a step.
   * @throws ResidualSkipError there are too many
   */
  count(): void {
    if (this.context.budget.spendStep()) return;
    this.invalid(
      'it and the nodes before it become more steps than a model with such small weights may have',
    );
  }

  /**
   * Adds a step with one output, or computes it at once when all of its inputs are constant.
   * @returns the output
   */
  step<Op extends IrStep['op']>(
    op: Op,
    inputs: readonly ValueId[],
    output: OutputType,
    attrs: StepNamed<Op>['attrs'],
  ): ValueId {
    this.count();
    this.checkShape(output.shape);
    const operands = this.constantOperands(inputs);
    if (operands) return this.constantStep(op, inputs, operands, [output], attrs)[0]!;
    const id = this.define(output);
    this.add(op, inputs, [id], attrs);
    return id;
  }

  /** Like `step`, with any number of outputs. */
  steps<Op extends IrStep['op']>(
    op: Op,
    inputs: readonly ValueId[],
    outputs: readonly OutputType[],
    attrs: StepNamed<Op>['attrs'],
  ): ValueId[] {
    this.count();
    for (const { shape } of outputs) this.checkShape(shape);
    const operands = this.constantOperands(inputs);
    if (operands) return this.constantStep(op, inputs, operands, outputs, attrs);
    const ids = outputs.map((output) => this.define(output));
    this.add(op, inputs, ids, attrs);
    return ids;
  }

  /** A step whose operands are constants. */
  private constantStep<Op extends IrStep['op']>(
    op: Op,
    inputs: readonly ValueId[],
    operands: readonly (Value | undefined)[],
    outputs: readonly OutputType[],
    attrs: StepNamed<Op>['attrs'],
  ): ValueId[] {
    // The parameters tie op and attrs together; TypeScript doesn't see it through the union.
    const step = { op, attrs } as IrStep;
    const folded = fold(this.context.cache, this.context.budget, step, operands, outputs);
    const ids = outputs.map((output, i) => this.define(output, folded?.[i]));
    if (op === 'dequantize') this.noteDequantised(ids[0]!, step, operands, outputs);
    if (!folded) this.add(op, inputs, ids, attrs);
    return ids;
  }

  private add(
    op: IrStep['op'],
    inputs: readonly ValueId[],
    outputs: readonly ValueId[],
    attrs: IrStep['attrs'],
  ): void {
    this.ops.push({ op, attrs, node: this.node.name, inputs, outputs } as IrOp);
  }

  private noteDequantised(
    id: ValueId,
    step: IrStep,
    operands: readonly (Value | undefined)[],
    outputs: readonly OutputType[],
  ): void {
    const { cache, dequantised } = this.context;
    dequantised.set(id, () => computed(cache, step, operands, outputs)[0]!);
  }

  /** The operands, if all of them are constants or absent. */
  private constantOperands(inputs: readonly ValueId[]): (Value | undefined)[] | undefined {
    for (let i = 0; i < inputs.length; i++) {
      if (inputs[i] !== NONE && !this.value(inputs[i]!).data) return undefined;
    }
    return inputs.map((id) => (id === NONE ? undefined : this.value(id)));
  }

  /** Adds a conditional. */
  conditional(condition: ValueId, branches: { then: IrBranch; else: IrBranch }): ValueId[] {
    const outputs = branches.then.outputs.map((id) => {
      const { dtype, shape } = this.value(id);
      return this.define({ dtype, shape });
    });
    this.ops.push({ op: 'if', node: this.node.name, inputs: [condition], outputs, branches });
    return outputs;
  }

  /** Adds the operations of a branch that is always taken. */
  inline(branch: IrBranch): readonly ValueId[] {
    for (const op of branch.ops) this.ops.push(op);
    return branch.outputs;
  }

  /** A sequence of values; only `elements` can read it. */
  sequence(elements: readonly ValueId[]): ValueId {
    const id = this.define({ dtype: 'float32', shape: [0] });
    this.context.sequences.set(id, elements);
    return id;
  }

  elements(sequence: ValueId): readonly ValueId[] {
    return this.context.sequences.get(sequence) ?? this.invalid('its input is not a sequence');
  }

  /** The same elements under another shape; nothing when it is the same. */
  reshape(x: ValueId, shape: Shape): ValueId {
    const { dtype, shape: from } = this.value(x);
    return sameShape(from, shape) ? x : this.step('reshape', [x], { dtype, shape }, {});
  }

  expand(x: ValueId, shape: Shape): ValueId {
    const { dtype, shape: from } = this.value(x);
    return sameShape(from, shape) ? x : this.step('expand', [x], { dtype, shape }, {});
  }

  cast(x: ValueId, dtype: ValueType): ValueId {
    const { dtype: from, shape } = this.value(x);
    return from === dtype ? x : this.step('cast', [x], { dtype, shape }, {});
  }

  private define({ dtype, shape }: OutputType, data?: TensorData): ValueId {
    this.prefix ??= `${this.node.outputs.find((name) => name !== '') ?? this.node.name}:`;
    const name = this.prefix + this.made++;
    return this.context.values.push(data ? { name, dtype, shape, data } : { name, dtype, shape }) - 1;
  }
}
