/**
 * Early exits and gates that a policy brings along, built into a program as ordinary steps: any backend then runs
 * them, and a program without them is untouched.
 */
import { ResidualSkipError } from '../errors.js';
import { insertSteps } from '../model/insert.js';
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
  readonly #scores: Port[] = [];
  readonly #exits: { readonly branch: Step; readonly logits: ValueId }[] = [];
  readonly #gates = new Map<string, { readonly gate: Gate; readonly steps: number }>();
  readonly #insertions = new Map<number, Step[]>();

  constructor(
    private readonly program: Program,
    private readonly heads: Heads,
  ) {
    this.#values = [...program.values];
  }

  build(): Program {
    for (const exit of this.heads.exits) {
      const block = this.#block(exit.after);
      this.#insert(0, this.#unknownScore(exit));
      this.#insert(block.end, this.#exitSteps(exit, block));
    }
    // Behind the exits: where a block ends and the next one begins, the exit comes first and the gate ends in the block.
    for (const gate of this.heads.gates) {
      const block = this.#block(gate.block);
      this.#insert(block.first, this.#gateSteps(gate, block));
    }
    const grown = insertSteps(this.program, this.#insertions);
    const blocks = grown.blocks.map((block): Block => {
      const added = this.#gates.get(block.name);
      return added ? { ...block, gateFirst: block.first - added.steps, gate: added.gate } : block;
    });
    return {
      ...grown,
      values: this.#values,
      steps: this.#withEpilogues(grown.steps),
      blocks,
      outputs: [...this.program.outputs, ...this.#scores],
    };
  }

  #insert(at: number, steps: readonly Step[]): void {
    this.#insertions.set(at, [...(this.#insertions.get(at) ?? []), ...steps]);
  }

  #block(name: string): Block {
    const block = this.program.blocks.find((candidate) => candidate.name === name);
    if (block) return block;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `the policy has a head for block '${name}', which the model doesn't have`,
    );
  }

  /** The confidence of an exit is NaN until an item comes there. */
  #unknownScore({ after }: ExitSpec): Step[] {
    const items = this.#values[this.#answer().value]!.shape[0]!;
    const score = this.#value(exitScoreName(after), 'float32', [items, 1]);
    const unknown = this.#constant(`${after}/unknown`, new Float32Array(items).fill(Number.NaN), [items, 1]);
    this.#scores.push({
      name: exitScoreName(after),
      value: score,
      batched: this.program.batching === 'item',
    });
    return [{ op: 'reshape', inputs: [unknown], outputs: [score], attrs: {} }];
  }

  #exitSteps({ after, head, threshold }: ExitSpec, block: Block): Step[] {
    const { value: output } = this.#answer();
    const classes = this.#values[output]!.shape.at(-1)!;
    const { steps, result: logits } = this.#readOut(`exit after ${after}`, head, block.output, classes);
    const { shape } = this.#values[logits]!;
    const probabilities = this.#value(`${after}/probabilities`, 'float32', shape);
    const spread = this.#value(`${after}/spread`, 'float32', [shape[0]!, 1, classes]);
    const score = this.#scores.find(({ name }) => name === exitScoreName(after))!.value;
    const limit = this.#constant(`${after}/threshold`, Float32Array.of(threshold), [1, 1]);
    const sure = this.#value(`${after}/sure`, 'bool', [shape[0]!, 1]);
    const goesOn = this.#value(`${after}/goes on`, 'bool', [shape[0]!, 1]);
    // Its target is known when all steps stand.
    const branch: Step = { op: 'branch', inputs: [goesOn], outputs: [], attrs: { target: NONE } };
    this.#exits.push({ branch, logits });
    return [
      ...steps,
      { op: 'softmax', inputs: [logits], outputs: [probabilities], attrs: { axis: 1, log: false } },
      { op: 'reshape', inputs: [probabilities], outputs: [spread], attrs: {} },
      { op: 'globalPool', inputs: [spread], outputs: [score], attrs: { kind: 'max' } },
      // A confidence that is no number is not sure: such an item goes on.
      { op: 'compare', inputs: [score, limit], outputs: [sure], attrs: { kind: 'ge' } },
      { op: 'logical', inputs: [sure], outputs: [goesOn], attrs: { kind: 'not' } },
      branch,
    ];
  }

  #gateSteps({ block: name, head, threshold }: GateSpec, block: Block): Step[] {
    if (!block.skippable || block.gate) {
      const why = block.gate ? 'has a gate of its own' : "can't be skipped";
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `the policy has a gate for block '${name}', which ${why}`,
      );
    }
    const { steps, result: score } = this.#readOut(`gate of ${name}`, head, block.input, 1);
    const gate: Gate = { form: 'policy', score, compare: 'gt', threshold };
    this.#gates.set(name, { gate, steps: steps.length });
    return steps;
  }

  /** Average over height and width, then the linear map; `result` is [N, outputs]. */
  #readOut(what: string, head: Head, from: ValueId, outputs: number): { steps: Step[]; result: ValueId } {
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
    const steps: Step[] = [
      { op: 'globalPool', inputs: [from], outputs: [pooled], attrs: { kind: 'avg' } },
      {
        op: 'gemm',
        inputs: [pooled, weight, bias, NONE],
        outputs: [result],
        attrs: { transB: true, act: NO_ACTIVATION },
      },
    ];
    return { steps, result };
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

  /** Behind the last step: each exit copies its answer into the program's, and its branch goes there. */
  #withEpilogues(grown: readonly Step[]): Step[] {
    const steps = [...grown];
    if (this.#exits.length === 0) return steps;
    const { value: output } = this.#answer();
    const done: Step = {
      op: 'jump',
      inputs: [],
      outputs: [],
      attrs: { target: steps.length + 2 * this.#exits.length },
    };
    for (const { branch, logits } of this.#exits) {
      steps.push(done);
      const target = steps.length;
      steps[grown.indexOf(branch)] = { op: 'branch', inputs: branch.inputs, outputs: [], attrs: { target } };
      steps.push({ op: 'reshape', inputs: [logits], outputs: [output], attrs: {} });
    }
    return steps;
  }

  #value(name: string, dtype: DataType, shape: readonly number[], data?: TensorData): ValueId {
    this.#values.push({ name, dtype, shape, data });
    return this.#values.length - 1;
  }

  #constant(name: string, data: Float32Array, shape: readonly number[]): ValueId {
    return this.#value(name, 'float32', shape, data);
  }
}
