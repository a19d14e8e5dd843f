/** Hand-made programs. */
import {
  type Block,
  NO_ACTIVATION,
  type Program,
  type Step,
  type Value,
  type ValueId,
} from 'lib/model/program/program.js';
import type { TensorData, ValueType } from 'lib/tensor/tensor.js';

const NO_COST = { multiplyAdds: 0, bytes: 0, layers: 0 };

export class ProgramBuilder {
  readonly values: Value[] = [];
  readonly steps: Step[] = [];
  readonly blocks: Block[] = [];
  private readonly inputs: { name: string; value: ValueId; batched: boolean }[] = [];

  value(shape: readonly number[], dtype: ValueType = 'float32', data?: TensorData): ValueId {
    this.values.push({ name: `v${this.values.length}`, dtype, shape, data });
    return this.values.length - 1;
  }

  constant(shape: readonly number[], values: readonly number[]): ValueId {
    return this.value(shape, 'float32', Float32Array.from(values));
  }

  input(shape: readonly number[], { dtype = 'float32' as ValueType, batched = true } = {}): ValueId {
    const value = this.value(shape, dtype);
    this.inputs.push({ name: `input${this.inputs.length}`, value, batched });
    return value;
  }

  /** Adds a step with one new output of the given shape, and returns the output. */
  step<Op extends Step['op']>(
    op: Op,
    attrs: Extract<Step, { op: Op }>['attrs'],
    inputs: readonly ValueId[],
    shape: readonly number[],
    dtype: ValueType = 'float32',
  ): ValueId {
    const y = this.value(shape, dtype);
    this.push({ op, attrs, inputs, outputs: [y] } as unknown as Step);
    return y;
  }

  push(step: Step): void {
    this.steps.push(step);
  }

  block(block: Partial<Block> & Pick<Block, 'first' | 'end' | 'input' | 'output'>): void {
    this.blocks.push({
      name: `block${this.blocks.length}`,
      shortcut: 'identity',
      skippable: true,
      gateFirst: block.first,
      skipActivation: NO_ACTIVATION,
      cost: NO_COST,
      ...block,
    });
  }

  build(outputs: readonly ValueId[], batching: Program['batching'] = 'item'): Program {
    const { values, steps, blocks, inputs } = this;
    const ports = outputs.map((value, i) => ({ name: `output${i}`, value, batched: true }));
    return { values, steps, blocks, exits: [], inputs, outputs: ports, batching, cost: NO_COST };
  }
}
