/** Exits as a policy lists them, where they are in a program, and what they cost. */
import { ResidualSkipError } from '../errors.js';
import { costOf } from '../model/program/cost.js';
import type { OwnExit, Program, Step } from '../model/program/program.js';
import { stepsFor } from '../model/program/steps-for.js';
import { type Head, multiplyAddsOf } from './head.js';

/**
 * An exit behind a block: its answer is final when the head's score, its largest softmax probability if it has none, reaches the threshold.
 * Without a head it is the model's own exit there, or that of a front, whose own score must reach the threshold.
 */
export interface ExitSpec {
  /** The block, the front, or `/input` for the model's own before its first block. */
  readonly after: string;
  /**
   * The block of an earlier exit. The input of that exit's last layer is appended to the features, so that each exit
   * knows what the previous ones found.
   */
  readonly reads?: string;
  readonly head?: Head;
  readonly threshold: number;
}

/** An exit, fitted or the model's own, without its threshold. */
export type AnyExit = Omit<ExitSpec, 'threshold'>;

/** Stands for a model's own exits, with their own thresholds. */
export const MODEL_EXITS: readonly ExitSpec[] = [];

/** `exits`, with MODEL_EXITS replaced by the exits that `program` has. */
export function resolveExits({ ownExits }: Program, exits: readonly ExitSpec[]): readonly ExitSpec[] {
  if (exits !== MODEL_EXITS) return exits;
  return modelExits(ownExits).map(({ after, threshold }) => ({ after, threshold }));
}

/** The exits that are in the graph. */
export function modelExits(ownExits: Program['ownExits']): readonly OwnExit[] {
  return (ownExits?.list ?? []).filter(({ front }) => !front);
}

/** The step before which an exit is evaluated. Its block is in the program. */
export function placeOf({ ownExits, blocks }: Program, { after, head }: AnyExit): number {
  const own = head ? undefined : ownExits?.list.find((exit) => exit.after === after);
  return own ? own.at : blocks.find(({ name }) => name === after)!.end;
}

/** Multiply-adds from a step on that belong to no block. */
export function workBeyond({ values, steps, blocks }: Program, at: number): number {
  const inside = blocks.filter(({ first }) => first >= at).map(({ cost }) => cost.multiplyAdds);
  return costOf(values, steps.slice(at)).multiplyAdds - inside.reduce((sum, cost) => sum + cost, 0);
}

/**
 * Multiply-adds of each of these exits of a program without them. The model's own include what they share with earlier ones that are
 * not among them.
 */
export function costsOfExits(program: Program, exits: readonly AnyExit[]): number[] {
  const { multiplyAdds } = neededSteps(program, exits);
  return exits.map(({ after, head }) => (head ? headWork(program, after, head) : multiplyAdds.get(after)!));
}

export function headWork({ blocks, values }: Program, after: string, head: Head): number {
  const block = blocks.find(({ name }) => name === after)!;
  return multiplyAddsOf(head, values[block.output]!.shape);
}

/** For each requested exit, by its block or front; with the steps that it shares with earlier exits that were not requested. */
export interface NeededSteps {
  readonly steps: ReadonlyMap<string, readonly Step[]>;
  readonly multiplyAdds: ReadonlyMap<string, number>;
}

/** The steps of those of the model's own exits, and of fronts, that are among `used`. */
export function neededSteps({ values, ownExits }: Program, used: readonly AnyExit[]): NeededSteps {
  const asked = new Set(used.filter(({ head }) => !head).map(({ after }) => after));
  const list = ownExits?.list ?? [];
  const missing = [...asked].find((after) => !list.some((exit) => exit.after === after));
  if (missing !== undefined) {
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy: its exit '${missing}' has no head, but the model has no exit of its own behind such a block, and the policy no such front`,
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
    waiting.push(...all.filter((step) => needed.has(step)));
    if (!asked.has(after)) continue;
    steps.set(after, waiting);
    multiplyAdds.set(after, costOf([...values, ...ownExits!.values], waiting).multiplyAdds);
    waiting = [];
  }
  return { steps, multiplyAdds };
}
