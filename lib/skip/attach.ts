/**
 * Builds the early exits and gates that a policy adds into a program as ordinary steps, so that any backend runs
 * them. A program without them doesn't change.
 */
import { ResidualSkipError } from '../errors.js';
import { costOf } from '../model/cost.js';
import { stepsFor } from '../model/exits.js';
import { Growth } from '../model/grow.js';
import {
  type Block,
  type Exits,
  type Gate,
  NONE,
  type Port,
  type Program,
  type Step,
  type ValueId,
} from '../model/program.js';
import { featureSteps, type Head, isReadable, layerSteps, multiplyAddsOf, widthOf } from './head.js';
import { finishOf } from './scores.js';

/**
 * An exit behind a block: its answer is final when the head's largest softmax probability reaches the threshold.
 * Without a head it is the model's own exit there, whose own score must reach the threshold.
 */
export interface ExitSpec {
  readonly after: string;
  /**
   * The block of an earlier exit. The input of that exit's last layer is appended to the features, so that each exit
   * knows what the previous ones found.
   */
  readonly reads?: string;
  readonly head?: Head;
  readonly threshold: number;
}

/** A gate before a skippable block, which runs when the head's only output is above the threshold. */
export interface HeadGateSpec {
  readonly block: string;
  readonly head: Head;
  readonly threshold: number;
}

/** A gate before a skippable block, which runs while the confidence of an earlier exit is below the threshold. */
export interface ConfidenceGateSpec {
  readonly block: string;
  /** The block of the exit, whose head gives the answer so far. */
  readonly confidenceOf: string;
  readonly threshold: number;
}

export type GateSpec = HeadGateSpec | ConfidenceGateSpec;

export interface Heads {
  readonly exits: readonly ExitSpec[];
  readonly gates: readonly GateSpec[];
}

/** Stands for a model's own exits, with their own thresholds. */
export const MODEL_EXITS: Heads = { exits: [], gates: [] };

const ownKnown = new WeakMap<Exits, Heads>();

/** `heads`, with MODEL_EXITS replaced by the exits that `program` has; the same object for the same program. */
export function resolveHeads({ exits }: Program, heads: Heads | undefined): Heads | undefined {
  if (heads !== MODEL_EXITS) return heads;
  if (!exits) return undefined;
  const known = ownKnown.get(exits);
  if (known) return known;
  const made = { exits: exits.list.map(({ after, threshold }) => ({ after, threshold })), gates: [] };
  ownKnown.set(exits, made);
  return made;
}

const EXIT_SCORE = 'residual-skip/exit/';
const EXIT_ANSWER = 'residual-skip/answer/';

/** Name of the extra output that holds the confidence of an exit. */
function exitScoreName(after: string): string {
  return `${EXIT_SCORE}${after}`;
}

/** The block of the exit whose confidence is the output `name`; undefined for other outputs. */
export function exitOf(name: string): string | undefined {
  return name.startsWith(EXIT_SCORE) ? name.slice(EXIT_SCORE.length) : undefined;
}

/** The block of the exit whose answer is the output `name`; undefined for other outputs. */
export function exitOfAnswer(name: string): string | undefined {
  return name.startsWith(EXIT_ANSWER) ? name.slice(EXIT_ANSWER.length) : undefined;
}

/**
 * `program` with `heads` built in. Each exit adds an output [N, 1]: its confidence, NaN for items that did not reach
 * it.
 * @param options.answers each exit also adds an output [N, classes]: the program's answer if the exit is taken, for
 * items that reached it
 * @throws ResidualSkipError INVALID_POLICY when a head fits no block of the program
 */
export function attachHeads(
  program: Program,
  heads: Heads,
  options: { readonly answers?: boolean } = {},
): Program {
  return new Attachment(program, heads, options.answers ?? false).build();
}

/** An exit, fitted or the model's own, without its threshold. */
export type AnyExit = Omit<ExitSpec, 'threshold'>;

/** The step before which an exit is evaluated. */
export function placeOf({ exits, blocks }: Program, { after, head }: AnyExit): number {
  const own = head ? undefined : exits?.list.find((exit) => exit.after === after);
  return own ? own.at : blocks.find(({ name }) => name === after)!.end;
}

/** Multiply-adds from a step on that belong to no block. */
export function workBeyond({ values, steps, blocks }: Program, at: number): number {
  const inside = blocks.filter(({ first }) => first >= at).map(({ cost }) => cost.multiplyAdds);
  return costOf(values, steps.slice(at)).multiplyAdds - inside.reduce((sum, cost) => sum + cost, 0);
}

interface OwnExits {
  /** By block. */
  readonly steps: ReadonlyMap<string, readonly Step[]>;
  /** For each requested exit, by its block; includes the steps it shares with earlier exits that were not requested. */
  readonly multiplyAdds: ReadonlyMap<string, number>;
}

/**
 * Multiply-adds of each of these exits of a program that has heads at their blocks. The model's own include what they share with
 * earlier ones that are not among them.
 */
export function costsOfExits(program: Program, exits: readonly AnyExit[]): number[] {
  const { multiplyAdds } = ownExits(program, exits);
  const { blocks } = program;
  return exits.map(
    ({ after }) => multiplyAdds.get(after) ?? blocks.find(({ name }) => name === after)!.heads!.exit,
  );
}

/** The steps of those of the model's own exits that are among `used`. */
function ownExits({ values, exits }: Program, used: readonly AnyExit[]): OwnExits {
  const asked = new Set(used.filter(({ head }) => !head).map(({ after }) => after));
  const list = exits?.list ?? [];
  const missing = [...asked].find((after) => !list.some((exit) => exit.after === after));
  if (missing !== undefined) {
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its exit behind block '${missing}' has no head, and the model has no exit of its own there`,
    );
  }
  const wanted = list.filter(({ after }) => asked.has(after));
  const needed = new Set(
    stepsFor(
      list.flatMap(({ steps }) => steps),
      wanted.flatMap(({ score, answer }) => [score, answer]),
    ),
  );
  const steps = new Map<string, readonly Step[]>();
  const multiplyAdds = new Map<string, number>();
  let waiting: Step[] = [];
  for (const { after, steps: all } of list) {
    const own = all.filter((step) => needed.has(step));
    steps.set(after, own);
    waiting.push(...own);
    if (!asked.has(after)) continue;
    multiplyAdds.set(after, costOf([...values, ...exits!.values], waiting).multiplyAdds);
    waiting = [];
  }
  return { steps, multiplyAdds };
}

class Attachment {
  readonly #growth: Growth;
  readonly #exits: { readonly branch: Step; readonly epilogue: () => Step[] }[] = [];
  /** The steps and costs of those of the model's own exits that are requested. */
  readonly #own: OwnExits;
  /** The confidence of each exit and the input of its head's last layer, by the exit's block. */
  readonly #confidences = new Map<string, ValueId>();
  readonly #hidden = new Map<string, ValueId>();
  readonly #gates = new Map<string, { readonly gate: Gate; readonly steps: number }>();

  constructor(
    private readonly program: Program,
    private readonly heads: Heads,
    private readonly showsAnswers: boolean,
  ) {
    this.#growth = new Growth(program);
    this.#own = ownExits(program, heads.exits);
  }

  build(): Program {
    for (const [after, steps] of this.#own.steps)
      this.#growth.insert(placeOf(this.program, { after }), steps);
    for (const exit of this.heads.exits) {
      const block = this.#block(exit.after);
      const score = this.#unknown(exitScoreName(exit.after), 1);
      this.#confidences.set(exit.after, score);
      this.#growth.insert(placeOf(this.program, exit), this.#exitSteps(exit, block, score));
    }
    // After the exits: where a block ends and the next one begins, the exit is first, and the gate is part of the
    // next block.
    for (const gate of this.heads.gates) {
      const block = this.#block(gate.block);
      this.#growth.insert(block.first, this.#gateSteps(gate, block));
    }
    const epilogues = this.#exits.map(({ epilogue }) => epilogue());
    const grown = this.#growth.build();
    const blocks = grown.blocks.map((block): Block => {
      const added = this.#gates.get(block.name);
      const heads = this.#costs(block.name);
      const asked = heads.gate + heads.exit > 0 ? { ...block, heads } : block;
      return added ? { ...asked, gateFirst: block.first - added.steps, gate: added.gate } : asked;
    });
    return { ...grown, steps: this.#withEpilogues(grown.steps, epilogues), blocks };
  }

  /** Multiply-adds of the heads at a block. A gate that reads an exit's confidence costs nothing. */
  #costs(name: string): { gate: number; exit: number; beyond: number } {
    const gate = this.heads.gates.find(({ block }) => block === name);
    const exit = this.heads.exits.find(({ after }) => after === name);
    return {
      gate: gate && 'head' in gate ? multiplyAddsOf(gate.head) : 0,
      exit: exit?.head ? multiplyAddsOf(exit.head) : (this.#own.multiplyAdds.get(name) ?? 0),
      beyond: exit ? workBeyond(this.program, placeOf(this.program, exit)) : 0,
    };
  }

  #block(name: string): Block {
    const block = this.program.blocks.find((candidate) => candidate.name === name);
    if (block) return block;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its head for block '${name}' fits no block of the model`,
    );
  }

  /** Adds an output [N, width] that is NaN until an item reaches the exit. */
  #unknown(name: string, width: number): ValueId {
    const items = this.#growth.valueOf(this.#answer().value).shape[0]!;
    const value = this.#growth.value(name, 'float32', [items, width]);
    const nothing = new Float32Array(items * width).fill(Number.NaN);
    const unknown = this.#growth.constant(`${name}/unknown`, nothing, [items, width]);
    this.#growth.output(name, value);
    this.#growth.insert(0, [{ op: 'reshape', inputs: [unknown], outputs: [value], attrs: {} }]);
    return value;
  }

  #exitSteps(spec: ExitSpec, block: Block, score: ValueId): Step[] {
    const { after, head, threshold } = spec;
    if (!head) {
      const own = this.program.exits!.list.find((exit) => exit.after === after)!;
      const known: Step[] = [{ op: 'reshape', inputs: [own.score], outputs: [score], attrs: {} }];
      if (this.showsAnswers) known.push(this.#shownAnswer(after, own.answer));
      return [...known, ...this.#leaveWhenSure(after, score, threshold, () => [this.#answerIs(own.answer)])];
    }
    const growth = this.#growth;
    const classes = growth.valueOf(this.#answer().value).shape.at(-1)!;
    const more = this.#hiddenFor(spec);
    const what = `exit after ${after}`;
    const { steps, result: logits, hidden } = this.#readOut(what, head, block.output, classes, more);
    this.#hidden.set(after, hidden);
    if (this.showsAnswers) {
      const finished = this.#finished(logits);
      steps.push(...finished.steps, this.#shownAnswer(after, finished.result));
    }
    const { shape } = growth.valueOf(logits);
    const probabilities = growth.value(`${after}/probabilities`, 'float32', shape);
    const spread = growth.value(`${after}/spread`, 'float32', [shape[0]!, 1, classes]);
    return [
      ...steps,
      { op: 'softmax', inputs: [logits], outputs: [probabilities], attrs: { axis: 1, log: false } },
      { op: 'reshape', inputs: [probabilities], outputs: [spread], attrs: {} },
      { op: 'globalPool', inputs: [spread], outputs: [score], attrs: { kind: 'max' } },
      ...this.#leaveWhenSure(after, score, threshold, () => this.#epilogue(logits)),
    ];
  }

  #shownAnswer(after: string, answer: ValueId): Step {
    const shown = this.#unknown(`${EXIT_ANSWER}${after}`, this.#growth.valueOf(answer).shape.at(-1)!);
    return { op: 'reshape', inputs: [answer], outputs: [shown], attrs: {} };
  }

  #leaveWhenSure(after: string, score: ValueId, threshold: number, epilogue: () => Step[]): Step[] {
    const growth = this.#growth;
    const items = growth.valueOf(score).shape[0]!;
    const limit = growth.constant(`${after}/threshold`, Float32Array.of(threshold), [1, 1]);
    const sure = growth.value(`${after}/sure`, 'bool', [items, 1]);
    const goesOn = growth.value(`${after}/goes on`, 'bool', [items, 1]);
    // The target is set when all steps are known.
    const branch: Step = { op: 'branch', inputs: [goesOn], outputs: [], attrs: { target: NONE } };
    this.#exits.push({ branch, epilogue });
    return [
      // A NaN confidence is not sure: the item continues.
      { op: 'compare', inputs: [score, limit], outputs: [sure], attrs: { kind: 'ge' } },
      { op: 'logical', inputs: [sure], outputs: [goesOn], attrs: { kind: 'not' } },
      branch,
    ];
  }

  #gateSteps(spec: GateSpec, block: Block): Step[] {
    const { block: name, threshold } = spec;
    if (!block.skippable || block.gate) {
      const why = block.gate ? 'has a gate of its own' : "can't be skipped";
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `policy: it has a gate for block '${name}', which ${why}`,
      );
    }
    if ('confidenceOf' in spec) {
      const score = this.#confidenceFor(spec);
      this.#gates.set(name, { gate: { form: 'confidence', score, compare: 'lt', threshold }, steps: 0 });
      return [];
    }
    const { steps, result: score } = this.#readOut(`gate of ${name}`, spec.head, block.input, 1, []);
    const gate: Gate = { form: 'policy', score, compare: 'gt', threshold };
    this.#gates.set(name, { gate, steps: steps.length });
    return [...steps];
  }

  #confidenceFor({ block, confidenceOf }: ConfidenceGateSpec): ValueId {
    const names = this.program.blocks.map(({ name }) => name);
    const score = this.#confidences.get(confidenceOf);
    if (score !== undefined && names.indexOf(confidenceOf) < names.indexOf(block)) return score;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its gate for block '${block}' reads the confidence of an exit behind block '${confidenceOf}', but has ` +
        'no exit there, or only one behind the gate',
    );
  }

  /** The part of its input that an exit takes from the exit that it reads. */
  #hiddenFor({ after, reads }: ExitSpec): ValueId[] {
    if (reads === undefined) return [];
    const names = this.program.blocks.map(({ name }) => name);
    const hidden = this.#hidden.get(reads);
    if (hidden !== undefined && names.indexOf(reads) < names.indexOf(after)) return [hidden];
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its exit behind block '${after}' reads the exit behind block '${reads}', but no exit there precedes it ` +
        'in the network and in the file',
    );
  }

  /** Applies the head to the map `from` and to `more`, [N, n] each; `result` is [N, outputs]. */
  #readOut(what: string, head: Head, from: ValueId, outputs: number, more: readonly ValueId[]) {
    const growth = this.#growth;
    this.#checkFit(what, head, from, outputs, more);
    const { steps, result } = featureSteps(growth, what, head.features, from);
    if (more.length === 0) {
      const layers = layerSteps(growth, what, head.layers, result);
      return { ...layers, steps: [...steps, ...layers.steps] };
    }
    const inputs = [result, ...more];
    const [items = 0] = growth.valueOf(result).shape;
    const width = inputs.reduce((sum, id) => sum + growth.valueOf(id).shape[1]!, 0);
    const seen = growth.value(`${what}/seen`, 'float32', [items, width]);
    const concat: Step = { op: 'concat', inputs, outputs: [seen], attrs: { axis: 1 } };
    const layers = layerSteps(growth, what, head.layers, seen);
    return { ...layers, steps: [...steps, concat, ...layers.steps] };
  }

  #checkFit(
    what: string,
    { features, layers }: Head,
    from: ValueId,
    outputs: number,
    more: readonly ValueId[],
  ): void {
    const value = this.#growth.valueOf(from);
    const { shape, dtype } = value;
    let width = widthOf(features, shape);
    for (const id of more) width += this.#growth.valueOf(id).shape[1]!;
    const chained = layers.every(({ weight, bias }) => {
      const fits = weight.length === bias.length * width;
      width = bias.length;
      return fits;
    });
    const alone = this.program.batching === 'item' || shape[0] === 1;
    if (chained && width === outputs && isReadable(features, value) && alone) return;
    const widths = layers.map(({ weight, bias }) => weight.length / Math.max(1, bias.length));
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its ${what} maps ${[...widths, layers.at(-1)?.bias.length ?? 0].join(' to ')} numbers (features: ` +
        `'${features}'), but the model has ${dtype} [${shape.join(', ')}] there and needs ${outputs}`,
    );
  }

  /** The program's answer: its only output, class scores [N, classes]. */
  #answer(): Port {
    const [port, another] = this.program.outputs;
    const value = port && this.#growth.valueOf(port.value);
    if (port && value?.shape.length === 2 && !another && value.dtype === 'float32') return port;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      'policy: it has early exits, which need a model with one output of class scores, float32 [batch, classes]',
    );
  }

  /** After the last step: each exit copies its answer into the program's answer, and its branch jumps there. */
  #withEpilogues(grown: readonly Step[], epilogues: readonly (readonly Step[])[]): Step[] {
    const steps = [...grown];
    const length = epilogues.reduce((sum, own) => sum + 1 + own.length, 0);
    const done: Step = { op: 'jump', inputs: [], outputs: [], attrs: { target: steps.length + length } };
    for (const [i, { branch }] of this.#exits.entries()) {
      steps.push(done);
      const target = steps.length;
      steps[grown.indexOf(branch)] = { op: 'branch', inputs: branch.inputs, outputs: [], attrs: { target } };
      steps.push(...epilogues[i]!);
    }
    return steps;
  }

  /** Makes an exit's logits the program's answer. */
  #epilogue(logits: ValueId): Step[] {
    const { steps, result } = this.#finished(logits);
    return [...steps, this.#answerIs(result)];
  }

  #answerIs(from: ValueId): Step {
    return { op: 'reshape', inputs: [from], outputs: [this.#answer().value], attrs: {} };
  }

  /** Finishes an exit's logits as the program finishes its own, such as by a softmax. */
  #finished(logits: ValueId): { readonly steps: Step[]; readonly result: ValueId } {
    const { value: output } = this.#answer();
    const finish = finishOf(this.program, output);
    if (!finish) return { steps: [], result: logits };
    const result = this.#growth.value('answer of an exit', 'float32', this.#growth.valueOf(output).shape);
    const ports = { inputs: [logits], outputs: [result] };
    const last: Step =
      finish.op === 'softmax'
        ? { op: 'softmax', ...ports, attrs: { axis: 1, log: finish.log } }
        : { op: 'unary', ...ports, attrs: { act: finish.act } };
    return { steps: [last], result };
  }
}
