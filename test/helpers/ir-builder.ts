import type { Ir, IrBranch, IrOp, IrStep } from 'lib/model/program/ir.js';
import {
  type ActivationKind,
  type BinaryKind,
  type CompareKind,
  NO_ACTIVATION,
  NONE,
  type Value,
  type ValueId,
} from 'lib/model/program/program.js';
import type { TensorData, ValueType } from 'lib/tensor/tensor.js';
import { randomFloats } from './random.js';

type StepName = IrStep['op'];
type Attributes<Op extends StepName> = Extract<IrStep, { op: Op }>['attrs'];

interface Shared {
  readonly values: Value[];
  seed: number;
  nodes: number;
}

/** Builds an Ir: each method appends one operation and returns its output. Weights are seeded. */
export class IrBuilder {
  private readonly ops: IrOp[] = [];
  private readonly inputs: { name: string; value: ValueId; batched: boolean }[] = [];
  private readonly shared: Shared;
  /** Prefix for the node names of the following operations. */
  scope = '';

  constructor(shared: Shared = { values: [], seed: 1, nodes: 0 }) {
    this.shared = shared;
  }

  shape(id: ValueId): readonly number[] {
    return this.shared.values[id]!.shape;
  }

  input(shape: readonly number[], dtype: ValueType = 'float32'): ValueId {
    const name = `input${this.inputs.length}`;
    const value = this.value(name, dtype, shape);
    this.inputs.push({ name, value, batched: true });
    return value;
  }

  constant(data: TensorData | number, shape: readonly number[] = []): ValueId {
    const elements = typeof data === 'number' ? Float32Array.of(data) : data;
    const dtype =
      elements instanceof BigInt64Array
        ? 'int64'
        : elements instanceof Uint8Array
          ? 'bool'
          : elements instanceof Int8Array
            ? 'int8'
            : 'float32';
    this.shared.values.push({ name: 'constant', dtype, shape, data: elements });
    return this.shared.values.length - 1;
  }

  random(shape: readonly number[], scale = 1, offset = 0): ValueId {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = randomFloats(size, this.shared.seed++).map((x) => x * scale + offset);
    return this.constant(data, shape);
  }

  step<Op extends StepName>(
    op: Op,
    inputs: readonly ValueId[],
    attrs: Attributes<Op>,
    shape: readonly number[],
    dtype: ValueType = 'float32',
  ): ValueId {
    const node = `${this.scope}${op}_${this.shared.nodes++}`;
    const output = this.value(node, dtype, shape);
    this.ops.push({ op, node, inputs, outputs: [output], attrs } as IrStep);
    return output;
  }

  conv(
    x: ValueId,
    channels: number,
    options: { kernel?: number; stride?: number; group?: number } = {},
  ): ValueId {
    const { kernel = 3, stride = 1, group = 1 } = options;
    const [n, c, h, w] = this.shape(x) as [number, number, number, number];
    const pad = (kernel - 1) / 2;
    const extent = (length: number) => Math.floor((length + 2 * pad - kernel) / stride) + 1;
    const weight = this.random(
      [channels, c / group, kernel, kernel],
      1 / Math.sqrt((c / group) * kernel * kernel),
    );
    const bias = this.random([channels], 0.1);
    const attrs = {
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
      dilations: [1, 1],
      group,
      act: NO_ACTIVATION,
    };
    return this.step('conv', [x, weight, bias, NONE], attrs, [n, channels, extent(h), extent(w)]);
  }

  gemm(x: ValueId, columns: number): ValueId {
    const [n, k] = this.shape(x) as [number, number];
    const weight = this.random([columns, k], 1 / Math.sqrt(k));
    const bias = this.random([columns], 0.1);
    return this.step('gemm', [x, weight, bias, NONE], { transB: true, act: NO_ACTIVATION }, [n, columns]);
  }

  /** A layer with the given weights, row by row; the bias of a row is `shift` times the sum of its weights. */
  private mlpLayer(x: ValueId, weights: Float32Array, shift: number): ValueId {
    const [n, k] = this.shape(x) as [number, number];
    const rows = weights.length / k;
    const bias = Float32Array.from({ length: rows }, (_, row) => {
      return shift * weights.slice(row * k, (row + 1) * k).reduce((a, b) => a + b);
    });
    const inputs = [x, this.constant(weights, [rows, k]), this.constant(bias, [rows]), NONE];
    return this.step('gemm', inputs, { transB: true, act: NO_ACTIVATION }, [n, rows]);
  }

  /** BatchNormalization in its lowered form. */
  norm(x: ValueId): ValueId {
    const channels = this.shape(x)[1]!;
    const [scale, shift] = [this.random([channels], 0.2, 1), this.random([channels], 0.2)];
    return this.step('affine', [x, scale, shift], { act: NO_ACTIVATION }, this.shape(x));
  }

  act(x: ValueId, kind: ActivationKind = 'relu', alpha = 0, beta = 0): ValueId {
    return this.step('unary', [x], { act: { kind, alpha, beta } }, this.shape(x));
  }

  binary(kind: BinaryKind, a: ValueId, b: ValueId): ValueId {
    return this.step('binary', [a, b], { kind, act: NO_ACTIVATION }, this.broadcast(a, b));
  }

  compare(kind: CompareKind, a: ValueId, b: ValueId): ValueId {
    return this.step('compare', [a, b], { kind }, this.broadcast(a, b), 'bool');
  }

  cast(x: ValueId, dtype: ValueType = 'float32'): ValueId {
    return this.step('cast', [x], {}, this.shape(x), dtype);
  }

  reshape(x: ValueId, shape: readonly number[]): ValueId {
    return this.step('reshape', [x], {}, shape, this.shared.values[x]!.dtype);
  }

  where(condition: ValueId, a: ValueId, b: ValueId): ValueId {
    return this.step('where', [condition, a, b], {}, this.broadcast(a, b), this.shared.values[a]!.dtype);
  }

  slice(
    x: ValueId,
    starts: readonly number[],
    shape: readonly number[],
    steps = starts.map(() => 1),
  ): ValueId {
    return this.step('slice', [x], { starts, steps }, shape, this.shared.values[x]!.dtype);
  }

  globalPool(x: ValueId): ValueId {
    return this.step('globalPool', [x], { kind: 'avg' }, this.shape(x).slice(0, 2));
  }

  /**
   * Pool and a small MLP: [1, outputs]. Logits grow with the brightness of x, later ones with a steeper slope. All are 0 at
   * a brightness that some of the tests' items exceed and others don't.
   */
  logits(x: ValueId, outputs = 1): ValueId {
    const channels = this.shape(x)[1]!;
    const hidden = this.act(
      this.mlpLayer(this.globalPool(x), new Float32Array(4 * channels).fill(1 / channels), 0),
    );
    const slopes = Float32Array.from(
      { length: 4 * outputs },
      (_, i) => (Math.floor(i / 4) + 1) / outputs / 4,
    );
    return this.mlpLayer(hidden, slopes, -0.3);
  }

  /** The hard decision logits(x) > threshold, as 0 or 1 in the shape [1,1,1,1]. */
  gate(x: ValueId, threshold = 0): ValueId {
    const flag = this.compare('gt', this.logits(x), this.constant(threshold));
    return this.reshape(this.cast(flag), [1, 1, 1, 1]);
  }

  /** Two convolutions with a relu between them. */
  body(x: ValueId, channels = this.shape(x)[1]!, stride = 1): ValueId {
    return this.norm(this.conv(this.act(this.norm(this.conv(x, channels, { stride }))), channels));
  }

  branches(
    condition: ValueId,
    shape: readonly number[],
    whenTrue: (branch: IrBuilder) => ValueId,
    whenFalse: (branch: IrBuilder) => ValueId,
  ): ValueId {
    const branch = (make: (branch: IrBuilder) => ValueId): IrBranch => {
      const nested = new IrBuilder(this.shared);
      const output = make(nested);
      return { ops: nested.ops, outputs: [output] };
    };
    const [onTrue, onFalse] = [branch(whenTrue), branch(whenFalse)];
    const node = `${this.scope}if_${this.shared.nodes++}`;
    const output = this.value(node, 'float32', shape);
    const branches = Object.fromEntries([
      ['then', onTrue],
      ['else', onFalse],
    ]) as unknown as { then: IrBranch; else: IrBranch };
    this.ops.push({ op: 'if', node, inputs: [condition], outputs: [output], branches });
    return output;
  }

  build(...outputs: ValueId[]): Ir {
    return {
      values: this.shared.values,
      inputs: this.inputs,
      outputs: outputs.map((value, i) => ({ name: `output${i}`, value, batched: true })),
      ops: this.ops,
      batching: 'item',
    };
  }

  private value(name: string, dtype: ValueType, shape: readonly number[]): ValueId {
    this.shared.values.push({ name, dtype, shape });
    return this.shared.values.length - 1;
  }

  private broadcast(a: ValueId, b: ValueId): number[] {
    const [x, y] = [this.shape(a), this.shape(b)];
    const rank = Math.max(x.length, y.length);
    return Array.from({ length: rank }, (_, i) => {
      return Math.max(x[i - rank + x.length] ?? 1, y[i - rank + y.length] ?? 1);
    });
  }
}
