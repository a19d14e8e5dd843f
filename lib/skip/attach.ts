/** Builds the early exits of a policy, and those of the model that it keeps, into a program. */
import { ResidualSkipError } from '../errors.js';
import { Growth } from '../model/program/grow.js';
import type { Block, OwnExit, Port, Program, Step, ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import {
  type AnyExit,
  type ExitSpec,
  headWork,
  type NeededSteps,
  neededSteps,
  placeOf,
  workBeyond,
} from './exits.js';
import {
  type Head,
  isOfPlaces,
  isReadable,
  type Layer,
  layerSteps,
  leadsTo,
  type RowFeatures,
  widthOf,
} from './head.js';
import { featureSteps } from './head-features.js';
import { fitsMap, mapSteps, tailOf } from './map-head.js';
import { finishOf, finishStep, surenessSteps } from './scores.js';

/**
 * `program` with these exits. It is the same program if there are none.
 * @throws ResidualSkipError INVALID_POLICY when a head fits no block of the program
 */
export function attachExits(program: Program, exits: readonly ExitSpec[]): Program {
  if (exits.length === 0) return program;
  const attachment = new Attachment(program, exits);
  attachment.build((place, { steps, score, answer }, exit) => {
    attachment.growth.insertExit(place, steps, {
      after: exit.after,
      blocks: program.blocks.findIndex(({ name }) => name === exit.after) + 1,
      threshold: exit.threshold,
      score,
      answers: [answer],
      multiplyAdds: attachment.multiplyAddsOf(exit),
      beyond: workBeyond(program, place),
    });
  });
  return attachment.growth.build();
}

/** Indices among the outputs of a program. */
export interface ReadOut {
  /** [N, 1]: the exit's score. */
  readonly score: number;
  /** As the program's output: its answer if the exit were taken. */
  readonly answer: number;
}

/**
 * `program` with two more outputs for each of these exits, none of which decides.
 * @throws ResidualSkipError INVALID_POLICY when a head fits no block of the program
 */
export function attachReadOuts(
  program: Program,
  exits: readonly AnyExit[],
): { readonly program: Program; readonly readOuts: readonly ReadOut[] } {
  const attachment = new Attachment(program, exits);
  const { growth } = attachment;
  const readOuts: ReadOut[] = [];
  attachment.build((place, { steps, score, answer }) => {
    // A step of its own writes every output of a program.
    const shown = [score, answer].map((id) => {
      const { dtype, shape } = growth.valueOf(id);
      return growth.value(`read out of ${growth.valueOf(id).name}`, dtype, shape);
    });
    growth.insert(place, [
      ...steps,
      { op: 'reshape', inputs: [score], outputs: [shown[0]!], attrs: {} },
      { op: 'reshape', inputs: [answer], outputs: [shown[1]!], attrs: {} },
    ]);
    const [of, by] = shown.map((id) => growth.output(growth.valueOf(id).name, id));
    readOuts.push({ score: of!, answer: by! });
  });
  return { program: growth.build(), readOuts };
}

/**
 * Whether exits can answer in the place of a program: it has one output of floats.
 * @param any also others than class scores [N, classes]
 */
export function isAnswerable({ outputs, values }: Program, any: boolean): boolean {
  const value = outputs.length === 1 ? values[outputs[0]!.value]! : undefined;
  return value?.dtype === 'float32' && (any ? value.shape.length >= 2 : value.shape.length === 2);
}

/** What a head with a score answers, for an output of that shape, without the batch: of tokens [N, tokens, width], one vector for all. */
function answeredShape([, ...shape]: readonly number[]): readonly number[] {
  return shape.length === 2 ? [1, shape[1]!] : shape;
}

/** What an exit computes. */
export interface Decided {
  readonly steps: readonly Step[];
  readonly score: ValueId;
  readonly answer: ValueId;
}

/** Makes the steps of exits. */
export class Attachment<Exit extends AnyExit> {
  readonly growth: Growth;
  /** Of the model's own exits that are requested. */
  readonly #needed: NeededSteps;
  /** The input of a head's last layer, by the exit's block. */
  readonly #hidden = new Map<string, ValueId>();

  constructor(
    private readonly program: Program,
    private readonly exits: readonly Exit[],
  ) {
    this.growth = new Growth(program);
    this.#needed = neededSteps(program, exits);
  }

  /** Calls `add` for each exit, with the step of the program before which it belongs. */
  build(add: (place: number, decided: Decided, exit: Exit) => void): void {
    // Several own ones may be at one place: each may read what earlier ones found.
    const turns = (this.program.ownExits?.list ?? []).map(({ after }) => after);
    const placed = this.exits.map((exit) => {
      const block = exit.head && this.#block(exit.after);
      return { exit, block, place: placeOf(this.program, exit), turn: turns.indexOf(exit.after) };
    });
    for (const { exit, block, place } of placed.sort((a, b) => a.place - b.place || a.turn - b.turn)) {
      add(place, block ? this.#fitted(exit, exit.head!, block) : this.#own(exit), exit);
    }
  }

  /** Of one exit. */
  multiplyAddsOf({ after, head }: Exit): number {
    return head ? headWork(this.program, after, head) : this.#needed.multiplyAdds.get(after)!;
  }

  #block(name: string): Block {
    const block = this.program.blocks.find((candidate) => candidate.name === name);
    if (block) return block;
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its head for block '${name}' fits no block of the model`,
    );
  }

  #own({ after }: Exit): Decided {
    const { score, answer }: OwnExit = this.program.ownExits!.list.find((exit) => exit.after === after)!;
    return { steps: this.#needed.steps.get(after)!, score, answer };
  }

  #fitted(exit: Exit, head: Head, block: Block): Decided {
    const { after } = exit;
    const { growth } = this;
    const { features } = head;
    if (isOfPlaces(features)) return this.#mapped(after, head, block);
    const what = `exit after ${after}`;
    const { shape } = growth.valueOf(this.#answer(head).value);
    const more = this.#hiddenFor(exit);
    this.#checkFit(
      what,
      { ...head, features },
      block.output,
      head.score ? sizeOf(answeredShape(shape)) : shape[1]!,
      more,
    );
    const seen = this.#seen(what, features, block.output, more);
    const read = layerSteps(growth, what, head.layers, seen.result);
    this.#hidden.set(after, read.hidden);
    const { score, ...rated } = head.score
      ? this.#scored(after, head.score, seen.result)
      : this.#surest(after, read.result);
    const answer = head.score
      ? this.#shaped(after, read.result, shape)
      : this.#finished(after, read.result, shape);
    return {
      steps: [...seen.steps, ...read.steps, ...rated.steps, ...answer.steps],
      score,
      answer: answer.result,
    };
  }

  /** A head that answers with a map. */
  #mapped(after: string, head: Head, { output }: Block): Decided {
    const { growth, program } = this;
    const tail = tailOf(program);
    if (tail && fitsMap(head, growth, output, tail)) return mapSteps(growth, after, head, output, tail);
    const { shape } = growth.valueOf(output);
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its exit after ${after} answers with a map (features: '${head.features}'), but its layers don't lead from ` +
        `[${shape.join(', ')}] there to ${tail ? `[${growth.valueOf(tail.map).shape.join(', ')}]` : 'what the model answers'}`,
    );
  }

  /** The score of a head that has one. */
  #scored(after: string, layers: readonly Layer[], seen: ValueId) {
    const { growth } = this;
    const { steps, result } = layerSteps(growth, `score after ${after}`, layers, seen);
    const score = growth.value(`${after}/score`, 'float32', growth.valueOf(result).shape);
    const attrs = { act: { kind: 'sigmoid', alpha: 0, beta: 0 } } as const;
    return {
      steps: [...steps, { op: 'unary', inputs: [result], outputs: [score], attrs } satisfies Step],
      score,
    };
  }

  /** The largest softmax probability. */
  #surest(after: string, logits: ValueId) {
    const { growth } = this;
    const [items = 0, classes = 0] = growth.valueOf(logits).shape;
    const add = (name: string, shape: readonly number[]) =>
      growth.value(`${after}/${name}`, 'float32', shape);
    const { steps, result: score } = surenessSteps(add, logits, [items, classes], 'logits');
    return { steps, score };
  }

  /** The part of its input that an exit takes from the exit that it reads. */
  #hiddenFor({ after, reads }: Exit): ValueId[] {
    if (reads === undefined) return [];
    const names = this.program.blocks.map(({ name }) => name);
    const hidden = this.#hidden.get(reads);
    if (hidden !== undefined && names.indexOf(reads) < names.indexOf(after)) return [hidden];
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its exit behind block '${after}' reads the exit behind block '${reads}', but no exit there precedes it`,
    );
  }

  /** The inputs of a head's first layer: features of the map `from`, and `more`, [N, n] each. */
  #seen(what: string, features: RowFeatures, from: ValueId, more: readonly ValueId[]) {
    const { growth } = this;
    const { steps, result } = featureSteps(growth, what, features, from);
    if (more.length === 0) return { steps, result };
    const inputs = [result, ...more];
    const [items = 0] = growth.valueOf(result).shape;
    const width = inputs.reduce((sum, id) => sum + growth.valueOf(id).shape[1]!, 0);
    const seen = growth.value(`${what}/seen`, 'float32', [items, width]);
    const concat: Step = { op: 'concat', inputs, outputs: [seen], attrs: { axis: 1 } };
    return { steps: [...steps, concat], result: seen };
  }

  #checkFit(
    what: string,
    { features, layers, score }: Head & { readonly features: RowFeatures },
    from: ValueId,
    outputs: number,
    more: readonly ValueId[],
  ): void {
    const value = this.growth.valueOf(from);
    const { shape, dtype } = value;
    let width = widthOf(features, shape);
    for (const id of more) width += this.growth.valueOf(id).shape[1]!;
    const fits = leadsTo(layers, width, outputs) && (!score || leadsTo(score, width, 1));
    const alone = this.program.batching === 'item' || shape[0] === 1;
    if (fits && isReadable(features, value) && alone) return;
    const widths = layers.map(({ weight, bias }) => weight.length / Math.max(1, bias.length));
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its ${what} maps ${[...widths, layers.at(-1)?.bias.length ?? 0].join(' to ')} numbers (features: ` +
        `'${features}'), but the model has ${dtype} [${shape.join(', ')}] there and needs ${outputs}`,
    );
  }

  /** The program's answer: its only output, class scores [N, classes], or for a head with a score any of floats. */
  #answer({ score }: Head): Port {
    if (isAnswerable(this.program, score !== undefined)) return this.program.outputs[0]!;
    const needed = score ? 'floats, with the batch first' : 'class scores, float32 [batch, classes]';
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: it has early exits, which need a model with one output of ${needed}`,
    );
  }

  /** The numbers of an answer in the shape of the output; of tokens, each has the same. */
  #shaped(after: string, numbers: ValueId, shape: readonly number[]) {
    if (shape.length === 2) return { steps: [], result: numbers };
    const [items = 0] = shape;
    const one = this.growth.value(`${after}/numbers`, 'float32', [items, ...answeredShape(shape)]);
    const result = this.growth.value(`${after}/answer`, 'float32', shape);
    const steps: Step[] = [
      { op: 'reshape', inputs: [numbers], outputs: [one], attrs: {} },
      { op: 'expand', inputs: [one], outputs: [result], attrs: {} },
    ];
    return { steps, result };
  }

  /** Finishes an exit's logits as the program finishes its own, such as by a softmax. */
  #finished(after: string, logits: ValueId, shape: readonly number[]) {
    const finish = finishOf(this.program, this.program.outputs[0]!.value);
    if (!finish) return { steps: [], result: logits };
    const result = this.growth.value(`${after}/answer`, 'float32', shape);
    return { steps: [finishStep(finish, logits, result)], result };
  }
}
