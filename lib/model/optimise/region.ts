import { ResidualSkipError } from '../../errors.js';
import type { TensorData, ValueType } from '../../tensor/tensor.js';
import type { IrBranch, IrOp, IrStep } from '../program/ir.js';
import {
  type Activation,
  type Gate,
  type GateForm,
  NONE,
  type Value,
  type ValueId,
} from '../program/program.js';
import { Effort } from './effort.js';
import { OrderedList } from './ordered-list.js';
import { Readers } from './readers.js';

type Writable<T> = T extends unknown ? { -readonly [K in keyof T]: T[K] } : never;

const isPresent = (id: ValueId) => id !== NONE;

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
 * every value. Nested regions (branches of an `if`) share `values` and read the outer region's. Changes take time for what they change,
 * not for the length of the list.
 */
export class Region {
  readonly values: Value[];
  readonly effort: Effort;
  private readonly list = new OrderedList<WorkOp>();
  private readonly conditionals = new Set<WorkIf>();
  private readonly producers = new Map<ValueId, WorkOp>();
  private readonly readers = new Readers<ValueId, WorkOp>();
  /** Operations that have lost a reader, or never had one. */
  private readonly suspects = new Set<WorkOp>();
  private results: readonly ValueId[] = [];
  private resultSet: ReadonlySet<ValueId> = new Set();
  private outside: readonly ValueId[] | undefined;

  constructor(values: Value[], ops: readonly IrOp[], outputs: readonly ValueId[], effort = new Effort()) {
    this.values = values;
    this.effort = effort;
    this.outputs = outputs;
    effort.allow(ops.length);
    for (let i = 0; i < ops.length; i++) this.insert(undefined, this.adopt(ops[i]!));
  }

  get ops(): readonly WorkOp[] {
    return this.list.all;
  }

  get outputs(): readonly ValueId[] {
    return this.results;
  }

  set outputs(ids: readonly ValueId[]) {
    for (const id of this.results) this.suspect(id);
    this.results = [...ids];
    this.resultSet = new Set(ids);
    this.outside = undefined;
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
    const users = this.readers.list(id);
    this.effort.spend(users.length);
    return users;
  }

  /** The number of `users`. */
  useCount(id: ValueId): number {
    return this.readers.count(id);
  }

  isOutput(id: ValueId): boolean {
    return this.resultSet.has(id);
  }

  /** True when exactly one input of one operation reads the value, and nothing outside does. */
  usedOnce(id: ValueId): boolean {
    return this.useCount(id) === 1 && !this.isOutput(id);
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
  reads(op: WorkOp): readonly ValueId[] {
    const reads = op.inputs.includes(NONE) ? op.inputs.filter(isPresent) : op.inputs;
    return op.op === 'if' ? [...reads, ...this.captures(op)] : reads;
  }

  /** Values read in this region but produced outside it. */
  captured(): readonly ValueId[] {
    this.outside ??= [...new Set([...this.readers.values(), ...this.results])].filter(
      (id) => !this.producers.has(id),
    );
    return this.outside;
  }

  /** Replaces `old` with `fresh`, at the position of the last of `old`. */
  replace(old: readonly WorkOp[], fresh: readonly WorkOp[]): void {
    const last = old.length === 1 ? old[0]! : this.lastOf(old);
    for (let i = 0; i < old.length; i++) if (old[i] !== last) this.remove(old[i]!);
    const next = this.list.next(last);
    this.remove(last);
    for (let i = 0; i < fresh.length; i++) this.insert(next, fresh[i]!);
  }

  remove(op: WorkOp): void {
    this.list.remove(op);
    this.outside = undefined;
    this.unlink(op);
    this.suspects.delete(op);
    if (op.op === 'if') this.conditionals.delete(op);
    const { outputs } = op;
    for (let i = 0; i < outputs.length; i++) {
      if (this.producers.get(outputs[i]!) === op) this.producers.delete(outputs[i]!);
    }
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
    for (const [op, times] of [...this.readers.of(from)]) {
      if (op.op === 'if') this.changeBranches(op, (branch) => branch.substitute(from, to));
      const inputs = op.inputs.map((id) => (id === from ? to : id));
      if (op.op === 'if') {
        this.setInputs(op, inputs);
        continue;
      }
      op.inputs = inputs;
      this.use(to, op, times);
      this.unuse(from, op);
    }
    if (this.isOutput(from)) this.outputs = this.outputs.map((id) => (id === from ? to : id));
  }

  /** Removes operations that nothing needs. */
  removeDead(): void {
    for (const op of this.conditionals) {
      if (op.whenTrue.mayHaveDead() || op.whenFalse.mayHaveDead())
        this.changeBranches(op, (branch) => branch.removeDead());
    }
    for (const op of this.suspects) {
      this.suspects.delete(op);
      if (op.outputs.every((id) => this.readers.count(id) === 0 && !this.isOutput(id))) this.remove(op);
    }
  }

  /** A number that grows along the list of operations. */
  position(op: WorkOp): number {
    return this.list.position(op);
  }

  private lastOf(ops: readonly WorkOp[]): WorkOp {
    return ops.reduce((a, b) => (this.position(a) > this.position(b) ? a : b));
  }

  private adopt(op: IrOp): WorkOp {
    if (op.op !== 'if') return { ...op };
    const nested = (branch: IrBranch) => new Region(this.values, branch.ops, branch.outputs, this.effort);
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

  /** Puts `op` before `next`, or at the end. */
  private insert(next: WorkOp | undefined, op: WorkOp): void {
    this.list.insert(op, next);
    if (op.op === 'if') this.conditionals.add(op);
    for (let i = 0; i < op.outputs.length; i++) this.producers.set(op.outputs[i]!, op);
    this.suspects.add(op);
    this.outside = undefined;
    this.link(op);
  }

  /** Written out, and so is `unlink`: V8 optimises short functions early, with all that they call. */
  private link(op: WorkOp): void {
    const { inputs } = op;
    for (let i = 0; i < inputs.length; i++) {
      const id = inputs[i]!;
      if (id !== NONE && this.readers.add(id, op, 1)) this.outside = undefined;
    }
    if (op.op === 'if') for (const id of this.captures(op)) this.use(id, op, 1);
  }

  private unlink(op: WorkOp): void {
    const { inputs } = op;
    for (let i = 0; i < inputs.length; i++) {
      const id = inputs[i]!;
      if (id === NONE || !this.readers.remove(id, op)) continue;
      this.outside = undefined;
      const producer = this.producers.get(id);
      if (producer) this.suspects.add(producer);
    }
    if (op.op === 'if') for (const id of this.captures(op)) this.unuse(id, op);
  }

  private captures({ whenTrue, whenFalse }: WorkIf): readonly ValueId[] {
    return [...whenTrue.captured(), ...whenFalse.captured()];
  }

  private use(id: ValueId, op: WorkOp, times: number): void {
    if (this.readers.add(id, op, times)) this.outside = undefined;
  }

  private unuse(id: ValueId, op: WorkOp): void {
    if (!this.readers.remove(id, op)) return;
    this.outside = undefined;
    this.suspect(id);
  }

  private suspect(id: ValueId): void {
    const producer = this.producers.get(id);
    if (producer) this.suspects.add(producer);
  }

  private mayHaveDead(): boolean {
    if (this.suspects.size > 0) return true;
    for (const { whenTrue, whenFalse } of this.conditionals)
      if (whenTrue.mayHaveDead() || whenFalse.mayHaveDead()) return true;
    return false;
  }
}
