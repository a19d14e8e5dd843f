/**
 * Early exits and gates that a policy brings along, built into a program as ordinary steps: any backend then runs
 * them, and a program without them is untouched.
 */
import { ResidualSkipError } from '../errors.js';
import {
  type Block,
  type Gate,
  NO_ACTIVATION,
  NONE,
  type Port,
  type Program,
  type Step,
  type Value,
  type ValueId,
} from '../model/program.js';
import type { DataType, TensorData } from '../tensor.js';

/**
 * A linear read-out of a feature map: global average over height and width, then weight * pooled + bias.
 */
export interface Head {
  /** outputs x channels, row-major. */
  readonly weight: Float32Array;
  /** One for each output. */
  readonly bias: Float32Array;
}

/** Behind a block: when the largest softmax probability of the head reaches the threshold, its answer is final. */
export interface ExitSpec {
  readonly after: string;
  readonly head: Head;
  readonly threshold: number;
}

/** Before a skippable block: it runs when the head's one output is above the threshold. */
export interface GateSpec {
  readonly block: string;
  readonly head: Head;
  readonly threshold: number;
}

export interface Heads {
  readonly exits: readonly ExitSpec[];
  readonly gates: readonly GateSpec[];
}

const EXIT_SCORE = 'residual-skip/exit/';

/** Name of the extra output that holds the confidence of an exit. */
function exitScoreName(after: string): string {
  return `${EXIT_SCORE}${after}`;
}

/** The block behind which the exit stands whose confidence is the output `name`; undefined for other outputs. */
export function exitOf(name: string): string | undefined {
  return name.startsWith(EXIT_SCORE) ? name.slice(EXIT_SCORE.length) : undefined;
}

/**
 * `program` with `heads` built in. For each exit it has one more output [N, 1]: the confidence,
 * NaN where an item did not come to it.
 * @throws ResidualSkipError INVALID_POLICY when a head fits no block of the program
 */
export function attachHeads(program: Program, heads: Heads): Program {
  return new Attachment(program, heads).build();
}

class Attachment {
  readonly #values: Value[];
  readonly #steps: Step[] = [];
  readonly #scores: Port[] = [];
  readonly #epilogues: { branchAt: number; logits: ValueId }[] = [];
  readonly #gates = new Map<number, Gate & { gateFirst: number }>();

  constructor(
    private readonly program: Program,
    private readonly heads: Heads,
  ) {
    this.#values = [...program.values];
  }

  build(): Program {
    const { program } = this;
    const exits = this.heads.exits.map((exit) => ({ exit, block: this.#block(exit.after) }));
    const gates = this.heads.gates.map((gate) => ({ gate, block: this.#block(gate.block) }));
    for (const { exit } of exits) this.#addScore(exit);
    /** Where old step i begins, with what was put before it, and where it stands itself. */
    const begins: number[] = [];
    const stands: number[] = [];
    for (let i = 0; i <= program.steps.length; i++) {
      begins.push(this.#steps.length);
      for (const { exit, block } of exits) if (block.end === i) this.#addExit(exit, block);
      for (const { gate, block } of gates) if (block.first === i) this.#addGate(gate, block);
      stands.push(this.#steps.length);
      const step = program.steps[i];
      if (step) this.#steps.push(step);
    }
    const blocks = program.blocks.map((block, index) => this.#moved(block, index, begins, stands));
    this.#retarget(begins);
    this.#addEpilogues();
    return {
      ...program,
      values: this.#values,
      steps: this.#steps,
      blocks,
      outputs: [...program.outputs, ...this.#scores],
    };
  }

  #block(name: string): Block {
    const block = this.program.blocks.find((candidate) => candidate.name === name);
    if (block) return block;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `the policy has a head for block '${name}', which the model doesn't have`,
    );
  }

  #moved(block: Block, index: number, begins: readonly number[], stands: readonly number[]): Block {
    const gate = this.#gates.get(index);
    const moved = { ...block, first: stands[block.first]!, end: begins[block.end]! };
    if (!gate) return { ...moved, gateFirst: stands[block.gateFirst]! };
    const { gateFirst, ...rest } = gate;
    return { ...moved, gateFirst, gate: rest };
  }

  /** Old jumps go to where their old target begins. New ones, which are still open, come later. */
  #retarget(begins: readonly number[]): void {
    this.#steps.forEach((step, at) => {
      if ((step.op === 'branch' || step.op === 'jump') && step.attrs.target !== NONE) {
        this.#steps[at] = { ...step, attrs: { target: begins[step.attrs.target]! } };
      }
    });
  }

  /** The confidence of an exit is NaN until an item comes there. */
  #addScore({ after }: ExitSpec): void {
    const items = this.#values[this.#answer().value]!.shape[0]!;
    const score = this.#value(exitScoreName(after), 'float32', [items, 1]);
    const unknown = this.#constant(`${after}/unknown`, new Float32Array(items).fill(Number.NaN), [items, 1]);
    this.#steps.push({ op: 'reshape', inputs: [unknown], outputs: [score], attrs: {} });
    this.#scores.push({
      name: exitScoreName(after),
      value: score,
      batched: this.program.batching === 'item',
    });
  }

  #addExit({ after, head, threshold }: ExitSpec, block: Block): void {
    const { value: output } = this.#answer();
    const classes = this.#values[output]!.shape.at(-1)!;
    const logits = this.#readOut(`exit after ${after}`, head, block.output, classes);
    const { shape } = this.#values[logits]!;
    const probabilities = this.#value(`${after}/probabilities`, 'float32', shape);
    const spread = this.#value(`${after}/spread`, 'float32', [shape[0]!, 1, classes]);
    const score = this.#scores.find(({ name }) => name === exitScoreName(after))!.value;
    const limit = this.#constant(`${after}/threshold`, Float32Array.of(threshold), [1, 1]);
    const sure = this.#value(`${after}/sure`, 'bool', [shape[0]!, 1]);
    const goesOn = this.#value(`${after}/goes on`, 'bool', [shape[0]!, 1]);
    this.#steps.push(
      { op: 'softmax', inputs: [logits], outputs: [probabilities], attrs: { axis: 1, log: false } },
      { op: 'reshape', inputs: [probabilities], outputs: [spread], attrs: {} },
      { op: 'globalPool', inputs: [spread], outputs: [score], attrs: { kind: 'max' } },
      // A confidence that is no number is not sure: such an item goes on.
      { op: 'compare', inputs: [score, limit], outputs: [sure], attrs: { kind: 'ge' } },
      { op: 'logical', inputs: [sure], outputs: [goesOn], attrs: { kind: 'not' } },
    );
    this.#epilogues.push({ branchAt: this.#steps.length, logits });
    this.#steps.push({ op: 'branch', inputs: [goesOn], outputs: [], attrs: { target: NONE } });
  }

  #addGate({ block: name, head, threshold }: GateSpec, block: Block): void {
    const index = this.program.blocks.indexOf(block);
    if (!block.skippable || block.gate) {
      const why = block.gate ? 'has a gate of its own' : "can't be skipped";
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `the policy has a gate for block '${name}', which ${why}`,
      );
    }
    const gateFirst = this.#steps.length;
    const score = this.#readOut(`gate of ${name}`, head, block.input, 1);
    this.#gates.set(index, { gateFirst, form: 'policy', score, compare: 'gt', threshold });
  }

  /** Average over height and width, then the linear map; a value of [N, outputs]. */
  #readOut(what: string, head: Head, from: ValueId, outputs: number): ValueId {
    const { shape, dtype } = this.#values[from]!;
    const [items = 0, channels = 0] = shape;
    const fits = head.weight.length === outputs * channels && head.bias.length === outputs;
    if (
      shape.length !== 4 ||
      dtype !== 'float32' ||
      !fits ||
      (this.program.batching === 'whole' && items > 1)
    ) {
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `the policy's ${what} maps ${head.weight.length / Math.max(1, head.bias.length)} features to ` +
          `${head.bias.length}, but the model has ${dtype} [${shape.join(', ')}] there and needs ${outputs}`,
      );
    }
    const pooled = this.#value(`${what}/pooled`, 'float32', [items, channels]);
    const result = this.#value(`${what}/result`, 'float32', [items, outputs]);
    const weight = this.#constant(`${what}/weight`, head.weight, [outputs, channels]);
    const bias = this.#constant(`${what}/bias`, head.bias, [outputs]);
    this.#steps.push(
      { op: 'globalPool', inputs: [from], outputs: [pooled], attrs: { kind: 'avg' } },
      {
        op: 'gemm',
        inputs: [pooled, weight, bias, NONE],
        outputs: [result],
        attrs: { transB: true, act: NO_ACTIVATION },
      },
    );
    return result;
  }

  /** The program's answer: its only output, class scores [N, classes]. */
  #answer(): Port {
    const [port, another] = this.program.outputs;
    const shape = port && this.#values[port.value]!.shape;
    if (port && shape?.length === 2 && !another && this.#values[port.value]!.dtype === 'float32') return port;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      'early exits need a model with one output of class scores, float32 [batch, classes]',
    );
  }

  /** Behind the last step: each exit copies its answer into the program's. */
  #addEpilogues(): void {
    if (this.#epilogues.length === 0) return;
    const { value: output } = this.#answer();
    const length = this.#steps.length + 1 + 2 * this.#epilogues.length - 1;
    const done: Step = { op: 'jump', inputs: [], outputs: [], attrs: { target: length } };
    this.#steps.push(done);
    this.#epilogues.forEach(({ branchAt, logits }, i) => {
      const branch = this.#steps[branchAt] as Extract<Step, { op: 'branch' }>;
      this.#steps[branchAt] = { ...branch, attrs: { target: this.#steps.length } };
      this.#steps.push({ op: 'reshape', inputs: [logits], outputs: [output], attrs: {} });
      if (i < this.#epilogues.length - 1) this.#steps.push(done);
    });
  }

  #value(name: string, dtype: DataType, shape: readonly number[], data?: TensorData): ValueId {
    this.#values.push({ name, dtype, shape, data });
    return this.#values.length - 1;
  }

  #constant(name: string, data: Float32Array, shape: readonly number[]): ValueId {
    return this.#value(name, 'float32', shape, data);
  }
}
