import { ResidualSkipError } from '../errors.js';
import type { TensorData, ValueType } from '../tensor.js';
import type { IrBranch, IrOp, IrStep } from './ir.js';
import { type Activation, type Gate, type GateForm, NONE, type Value, type ValueId } from './program.js';

type Writable<T> = T extends unknown ? { -readonly [K in keyof T]: T[K] } : never;

/** A step that rewriting may change in place. */
export type WorkStep = Writable<IrStep>;
export type WorkStepNamed<Op extends WorkStep['op']> = Extract<WorkStep, { op: Op }>;

/** A conditional whose branches are regions of their own. */
export interface WorkIf {
  readonly op: 'if';
  readonly node: string;
  inputs: readonly ValueId[];
  outputs: readonly ValueId[];
  readonly whenTrue: Region;
  readonly whenFalse: Region;
}

/**
 * [score, body, shortcut] -> [y]; y = score <compare> threshold ? body : skipActivation(shortcut), or skipTable[shortcut]. A
 * recognised gate in normal form; lives only between gate recognition and scheduling.
 */
export interface Select {
  readonly op: 'select';
  readonly node: string;
  inputs: readonly ValueId[];
  outputs: readonly ValueId[];
  attrs: {
    readonly form: GateForm;
    readonly compare: Gate['compare'];
    readonly threshold: number;
    readonly skipActivation: Activation;
    /** Of a stream of bytes: a constant table that the shortcut goes through, as in `Block`. */
    readonly skipTable?: ValueId;
  };
}

export type WorkOp = WorkStep | WorkIf | Select;

/**
 * A list of operations in SSA form and topological order that can be rewritten. Keeps producer and users of
 * every value. Nested regions (branches of an `if`) share `values` and read the outer region's.
 */
export class Region {
  readonly values: Value[];
  outputs: ValueId[];
  private readonly list: WorkOp[] = [];
  private readonly producers = new Map<ValueId, WorkOp>();
  private readonly uses = new Map<ValueId, WorkOp[]>();
  private order: ReadonlyMap<WorkOp, number> | undefined;

  constructor(values: Value[], ops: readonly IrOp[], outputs: readonly ValueId[]) {
    this.values = values;
    this.outputs = [...outputs];
    for (const op of ops) this.insert(this.list.length, this.adopt(op));
  }

  get ops(): readonly WorkOp[] {
    return this.list;
  }

  value(id: ValueId): Value {
    const value = this.values[id];
    if (!value) throw new ResidualSkipError('INTERNAL', `value ${id}: it does not exist`);
    return value;
  }

  shape(id: ValueId): readonly number[] {
    return this.value(id).shape;
  }

  producer(id: ValueId): WorkOp | undefined {
    return this.producers.get(id);
  }

  /** The step that produces `id`, if its operator is `op`. */
  producerOf<Op extends WorkStep['op']>(id: ValueId, op: Op): WorkStepNamed<Op> | undefined {
    const producer = this.producers.get(id);
    return producer?.op === op ? (producer as WorkStepNamed<Op>) : undefined;
  }

  /** One entry for each use. */
  users(id: ValueId): readonly WorkOp[] {
    return this.uses.get(id) ?? [];
  }

  isOutput(id: ValueId): boolean {
    return this.outputs.includes(id);
  }

  /** True when exactly one input of one operation reads the value, and nothing outside does. */
  usedOnce(id: ValueId): boolean {
    return this.users(id).length === 1 && !this.isOutput(id);
  }

  /** The producer of `id`, if nothing but one reader needs `id`. */
  soleProducer(id: ValueId): WorkOp | undefined {
    return this.usedOnce(id) ? this.producers.get(id) : undefined;
  }

  has(op: WorkOp): boolean {
    return this.producers.get(op.outputs[0]!) === op;
  }

  addValue(name: string, dtype: ValueType, shape: readonly number[], data?: TensorData): ValueId {
    this.values.push(data ? { name, dtype, shape, data } : { name, dtype, shape });
    return this.values.length - 1;
  }

  /** All values that an operation reads, including those that the branches of an `if` capture. */
  reads(op: WorkOp): ValueId[] {
    const reads = op.inputs.filter((id) => id !== NONE);
    return op.op === 'if' ? [...reads, ...op.whenTrue.captured(), ...op.whenFalse.captured()] : reads;
  }

  /** Values read in this region but produced outside it. */
  captured(): ValueId[] {
    const captured = new Set<ValueId>();
    for (const id of [...this.uses.keys(), ...this.outputs]) {
      if (!this.producers.has(id) && (this.users(id).length > 0 || this.isOutput(id))) captured.add(id);
    }
    return [...captured];
  }

  /** Replaces `old` with `fresh`, at the position of the last of `old`. */
  replace(old: readonly WorkOp[], fresh: readonly WorkOp[]): void {
    const anchor = this.list[Math.max(...old.map((op) => this.list.indexOf(op)))];
    for (const op of old) if (op !== anchor) this.remove(op);
    const at = this.list.indexOf(anchor!);
    this.remove(anchor!);
    fresh.forEach((op, i) => {
      this.insert(at + i, op);
    });
  }

  remove(op: WorkOp): void {
    this.order = undefined;
    this.list.splice(this.list.indexOf(op), 1);
    this.unlink(op);
    for (const id of op.outputs) if (this.producers.get(id) === op) this.producers.delete(id);
  }

  setInputs(op: WorkOp, inputs: readonly ValueId[]): void {
    this.unlink(op);
    op.inputs = inputs;
    this.link(op);
  }

  /** Applies `change` to both branches, which may change what they capture. */
  changeBranches(op: WorkIf, change: (branch: Region) => void): void {
    this.unlink(op);
    change(op.whenTrue);
    change(op.whenFalse);
    this.link(op);
  }

  /** Makes every reader of `from` read `to`. */
  substitute(from: ValueId, to: ValueId): void {
    for (const op of new Set(this.users(from))) {
      if (op.op === 'if') this.changeBranches(op, (branch) => branch.substitute(from, to));
      this.setInputs(
        op,
        op.inputs.map((id) => (id === from ? to : id)),
      );
    }
    this.outputs = this.outputs.map((id) => (id === from ? to : id));
  }

  /** Removes operations that nothing needs. */
  removeDead(): void {
    for (let i = this.list.length - 1; i >= 0; i--) {
      const op = this.list[i]!;
      if (op.op === 'if') this.changeBranches(op, (branch) => branch.removeDead());
      if (op.outputs.every((id) => this.users(id).length === 0 && !this.isOutput(id))) this.remove(op);
    }
  }

  /** Position of every operation in `ops`. */
  positions(): ReadonlyMap<WorkOp, number> {
    this.order ??= new Map(this.list.map((op, i) => [op, i]));
    return this.order;
  }

  /** The operations that `output` needs and that need `input`, in order. */
  between(input: ValueId, output: ValueId): WorkOp[] {
    const needed = this.ancestors(output, input);
    const reached = new Set<WorkOp>();
    for (const op of [...needed].sort((a, b) => this.positions().get(a)! - this.positions().get(b)!)) {
      const reads = this.reads(op);
      if (reads.some((id) => id === input || reached.has(this.producers.get(id)!))) reached.add(op);
    }
    return [...reached];
  }

  /** The operations that `id` needs; if `since` is given, only those after its producer. */
  ancestors(id: ValueId, since?: ValueId): Set<WorkOp> {
    const origin = since === undefined ? undefined : this.producers.get(since);
    const floor = origin ? this.positions().get(origin)! : -1;
    const found = new Set<WorkOp>();
    const pending = [id];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const producer = this.producers.get(next);
      if (!producer || found.has(producer) || this.positions().get(producer)! <= floor) continue;
      found.add(producer);
      pending.push(...this.reads(producer));
    }
    return found;
  }

  /** Whether `id` is computed from `ancestor` (or is it). */
  dependsOn(id: ValueId, ancestor: ValueId): boolean {
    if (id === ancestor) return true;
    for (const op of this.ancestors(id, ancestor)) if (this.reads(op).includes(ancestor)) return true;
    return false;
  }

  private adopt(op: IrOp): WorkOp {
    if (op.op !== 'if') return { ...op };
    const nested = (branch: IrBranch) => new Region(this.values, branch.ops, branch.outputs);
    const { node, inputs, outputs, branches } = op;
    return {
      op: 'if',
      node,
      inputs,
      outputs,
      whenTrue: nested(branches.then),
      whenFalse: nested(branches.else),
    };
  }

  private insert(at: number, op: WorkOp): void {
    this.order = undefined;
    this.list.splice(at, 0, op);
    for (const id of op.outputs) this.producers.set(id, op);
    this.link(op);
  }

  private link(op: WorkOp): void {
    for (const id of this.reads(op)) {
      const users = this.uses.get(id);
      if (users) users.push(op);
      else this.uses.set(id, [op]);
    }
  }

  private unlink(op: WorkOp): void {
    for (const id of new Set(this.reads(op))) {
      const rest = this.users(id).filter((user) => user !== op);
      if (rest.length > 0) this.uses.set(id, rest);
      else this.uses.delete(id);
    }
  }
}
