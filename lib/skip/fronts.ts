/**
 * Fronts: whole networks as exits before the first block. A front reads the input of the network and answers the items that it is sure
 * of; the others go on to the next front, or to the network. A network with fronts is a ladder, also called a cascade (Viola and
 * Jones 2001; Wang et al. 2020, arXiv 2012.01988).
 */
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { costOf } from '../model/program/cost.js';
import {
  NONE,
  type OwnExit,
  type Program,
  type Step,
  type Value,
  type ValueId,
} from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import type { TensorData } from '../tensor/tensor.js';
import { late } from '../util/late.js';
import { sha256Schema } from '../util/validation.js';
import { Attachment } from './attach.js';
import type { AnyExit } from './exits.js';
import { decodeFrontExits, frontExitsSchema } from './head-codec.js';
import {
  type ClassScores,
  CONFIDENCES,
  classScoresOf,
  finishOf,
  finishStep,
  NEVER,
  surenessSteps,
} from './scores.js';

const finite = late(() => z.number().refine(Number.isFinite, { error: 'expected a finite number' }));
const length = late(() => z.int({ error: 'expected a whole number of at least 1' }).min(1));

/** Whether each class that isn't null is there once, and one is. */
function isOneToOne(classes: readonly (number | null)[]): boolean {
  const named = classes.filter((to) => to !== null);
  return named.length > 0 && new Set(named).size === named.length;
}

export const frontSchema = late(() =>
  z
    .strictObject({
      name: z.string().min(1).meta({ description: 'Names its exit in `heads`, and in traces.' }),
      file: z
        .string()
        .regex(/^(?!\.+$)[^/\\]+$/, { error: 'expected the name of a file in the folder of the model' })
        .meta({ description: "An ONNX file in the model's folder; the model's own for a lower resolution." }),
      sha256: sha256Schema(),
      size: z.tuple([length(), length()]).optional().meta({
        description: 'Height and width at which it runs: the image is resized to them, with antialiasing.',
      }),
      scale: z.array(finite()).min(1).optional().meta({
        description: "For each channel: what the network's input is multiplied by.",
      }),
      offset: z
        .array(finite())
        .min(1)
        .optional()
        .meta({ description: 'For each channel: what is added then.' }),
      classes: z
        .array(z.int().min(0).nullable())
        .refine(isOneToOne, { error: "expected the model's classes, each at most once, or null" })
        .optional()
        .meta({
          description: "For each of its classes the network's, null if that has none; the same by default.",
        }),
      confidence: z.enum(CONFIDENCES).optional().meta({
        description:
          "The score of its answer: the largest 'probability', which is the default, or the 'margin', its share in the two largest.",
      }),
      exits: frontExitsSchema().optional(),
    })
    .meta({ description: 'A network that answers the items that it is sure of, before the model begins.' }),
);

/** A front as a policy describes it. */
export type FrontSpec = Readonly<z.infer<ReturnType<typeof frontSchema>>>;

/** The name of a front's exit behind a block of its own. */
export const exitInside = (front: string, block: string) => `${front}/${block}`;
/** Whether an exit is behind a block of this front. */
export const isInside = (front: string, exit: string) => exit.startsWith(exitInside(front, ''));

/** A front as a program that reads the inputs of the network, by name, and has one output with class scores or more. */
export interface Front {
  readonly spec: FrontSpec;
  readonly program: Program;
}

/** The logit of a class that a front doesn't know. */
const IMPOSSIBLE = -1e4;

/**
 * `program` with the fronts' exits, each under its front's name, before those of its own graph. Nothing decides until a policy takes them.
 * @throws ResidualSkipError INVALID_POLICY for a front that doesn't fit the program
 */
export function withFronts(program: Program, fronts: readonly Front[]): Program {
  if (fronts.length === 0) return program;
  const values: Value[] = [...(program.ownExits?.values ?? [])];
  const list = fronts.flatMap((front) => new Joining(program, front, values).exits());
  return { ...program, ownExits: { values, list: [...list, ...(program.ownExits?.list ?? [])] } };
}

/** Makes the exits of one front: those behind its blocks, and the one at its end. */
class Joining {
  readonly #joined = new Map<ValueId, ValueId>([[NONE, NONE]]);
  readonly #inner: Attachment<AnyExit>;
  /** Steps of gates, which are left out: all blocks of a front run. */
  readonly #gates: ReadonlySet<Step>;
  /** Of the exit that is being made. */
  #steps: Step[] = [];

  /** @param added values behind those of the program */
  constructor(
    private readonly program: Program,
    private readonly front: Front,
    private readonly added: Value[],
  ) {
    this.#inner = new Attachment(front.program, decodeFrontExits(front.spec.exits ?? []));
    const { blocks, steps } = front.program;
    this.#gates = new Set(blocks.flatMap(({ gateFirst, first }) => steps.slice(gateFirst, first)));
  }

  exits(): OwnExit[] {
    const { name } = this.front.spec;
    const { steps, outputs } = this.front.program;
    const [own, scores] = this.#checked();
    this.#bindInputs();
    const list: OwnExit[] = [];
    let from = 0;
    const add = (after: string, to: number, score: ValueId | undefined, answer: ValueId) => {
      const flat = this.#flat(answer);
      list.push(this.#exit(after, score ?? this.#scoreOf(flat, scores), this.#answerOf(flat, scores, own)));
      from = to;
    };
    this.#inner.build((place, decided, { after }) => {
      this.#join([...steps.slice(from, place), ...decided.steps]);
      add(exitInside(name, after), place, this.#renumber(decided.score), this.#renumber(decided.answer));
    });
    this.#join(steps.slice(from));
    add(name, steps.length, undefined, this.#renumber(outputs[scores.index]!.value));
    return list;
  }

  #exit(after: string, score: ValueId, answer: ValueId): OwnExit {
    const steps = this.#steps;
    this.#steps = [];
    const cost = costOf([...this.program.values, ...this.added], steps);
    return { after, front: true, at: 0, steps, score, threshold: NEVER, answer, cost };
  }

  #flat(answer: ValueId): ValueId {
    return this.#step('reshape', [answer], [1, sizeOf(this.#valueOf(answer).shape)], {});
  }

  /** The class scores of network and front. */
  #checked(): [ClassScores, ClassScores] {
    const { program, front } = this;
    const [own, scores] = [classScoresOf(program), classScoresOf(front.program)];
    const wrong = (problem: string, way: string): never => {
      throw new ResidualSkipError(
        'INVALID_POLICY',
        `policy: its front '${front.spec.name}' ${problem}; ${way}`,
      );
    };
    if (!own || program.outputs.length > 1) {
      return wrong('needs a model with one output of class scores, float32 [batch, classes]', 'remove it');
    }
    const taken = [
      ...program.blocks.map(({ name }) => name),
      ...(program.ownExits?.list ?? []).map(({ after }) => after),
    ];
    if (taken.includes(front.spec.name)) {
      return wrong('has the name of a block, or of an exit of the model', 'give it another');
    }
    if (!scores)
      return wrong('has no output with class scores', 'give a network with the classes of the model');
    if (front.program.batching !== 'item' || front.program.steps.some(({ op }) => op === 'branch')) {
      return wrong('mixes the items of a batch, or has branches', 'give a plain network');
    }
    const count = (scored: Program, { index }: ClassScores) =>
      scored.values[scored.outputs[index]!.value]!.shape[1]!;
    const [classes, known] = [count(program, own), count(front.program, scores)];
    const { classes: map } = front.spec;
    if (map ? map.length !== known || map.some((to) => (to ?? 0) >= classes) : known !== classes) {
      const all = map ? `, of which 'classes' names ${map.length}` : '';
      return wrong(`has ${known} classes${all}, and the model has ${classes}`, "map them by 'classes'");
    }
    return [own, scores];
  }

  #valueOf(id: ValueId): Value {
    const own = this.program.values;
    return id < own.length ? own[id]! : this.added[id - own.length]!;
  }

  #add(value: Value): ValueId {
    return this.program.values.length + this.added.push(value) - 1;
  }

  #constant(dtype: 'float32' | 'int32', shape: readonly number[], data: TensorData): ValueId {
    return this.#add({ name: `${this.front.spec.name}/constant`, dtype, shape, data });
  }

  #step<Op extends Step['op']>(
    op: Op,
    inputs: readonly ValueId[],
    shape: readonly number[],
    attrs: Extract<Step, { op: Op }>['attrs'],
  ): ValueId {
    const result = this.#add({ name: `${this.front.spec.name}/${op}`, dtype: 'float32', shape });
    this.#steps.push({ op, inputs, outputs: [result], attrs } as unknown as Step);
    return result;
  }

  #bindInputs(): void {
    for (const { name, value } of this.front.program.inputs) {
      this.#joined.set(value, this.program.inputs.find((input) => input.name === name)!.value);
    }
  }

  /** What a value of the front is here. */
  #renumber(id: ValueId): ValueId {
    let known = this.#joined.get(id);
    if (known === undefined) {
      const value = this.#inner.growth.valueOf(id);
      known = this.#add({ ...value, name: `${this.front.spec.name}/${value.name}` });
      this.#joined.set(id, known);
    }
    return known;
  }

  /** Adds steps of the front. */
  #join(steps: readonly Step[]): void {
    for (const step of steps) {
      if (this.#gates.has(step)) continue;
      const renumbered = (ids: readonly ValueId[]) => ids.map((id) => this.#renumber(id));
      this.#steps.push({
        ...step,
        inputs: renumbered(step.inputs),
        outputs: renumbered(step.outputs),
      } as Step);
    }
  }

  /** How sure it is of a class of the network, [1, 1]. */
  #scoreOf(scores: ValueId, { meaning }: ClassScores): ValueId {
    const { name, classes, confidence } = this.front.spec;
    // Where it is sure of a class that the network doesn't have, it has no answer.
    const shared = classes?.includes(null)
      ? Int32Array.from(classes.keys()).filter((own) => classes[own] !== null)
      : undefined;
    const { steps, result } = surenessSteps(
      (what, shape, dtype = 'float32') => this.#add({ name: `${name}/${what}`, dtype, shape }),
      scores,
      [1, sizeOf(this.#valueOf(scores).shape)],
      meaning,
      confidence,
      shared && { indices: this.#constant('int32', [shared.length], shared), count: shared.length },
    );
    this.#steps.push(...steps);
    return result;
  }

  /** The front's answer as the network would give it: the network's classes, and its kind of scores. */
  #answerOf(scores: ValueId, front: ClassScores, own: ClassScores): ValueId {
    const { program } = this;
    const output = program.outputs[own.index]!.value;
    const { shape } = program.values[output]!;
    const finish = finishOf(program, output);
    const flat = [1, sizeOf(shape)];
    let answer = scores;
    const isProbability = front.meaning === 'probabilities';
    const wanted = own.meaning === 'probabilities';
    if (isProbability && !wanted) {
      answer = this.#step('unary', [answer], this.#valueOf(answer).shape, {
        act: { kind: 'log', alpha: 0, beta: 0 },
      });
    }
    const { classes } = this.front.spec;
    if (classes) answer = this.#mapped(answer, classes, flat, isProbability && wanted ? 0 : IMPOSSIBLE);
    if (finish && !(isProbability && wanted)) {
      const scored = this.#add({ name: `${this.front.spec.name}/scores`, dtype: 'float32', shape: flat });
      this.#steps.push(finishStep(finish, answer, scored));
      answer = scored;
    }
    return this.#step('reshape', [answer], shape, {});
  }

  #mapped(
    scores: ValueId,
    classes: NonNullable<FrontSpec['classes']>,
    shape: readonly number[],
    none: number,
  ): ValueId {
    const more = this.#constant('float32', [1, 1], Float32Array.of(none));
    const all = this.#step('concat', [scores, more], [1, classes.length + 1], { axis: 1 });
    const from = Int32Array.from({ length: shape[1]! }, (_, own) => {
      const index = classes.indexOf(own);
      return index < 0 ? classes.length : index;
    });
    return this.#step('gather', [all, this.#constant('int32', [from.length], from)], shape, { axis: 1 });
  }
}
