/** Class scores: which output of a network holds them, what they mean, and the classes they rank. */

import {
  type Activation,
  NO_ACTIVATION,
  type Program,
  type Step,
  type ValueId,
} from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { softmax } from '../numeric/softmax.js';
import type { ValueType } from '../tensor/tensor.js';

/**
 * `logits`: a softmax turns them (or logarithms of probabilities) into probabilities. `probabilities`: the network
 * ends in a softmax or a sigmoid.
 */
export type Meaning = 'logits' | 'probabilities';

/** The output with class scores. */
export interface ClassScores {
  /** Index among the program's outputs. */
  readonly index: number;
  readonly name: string;
  readonly meaning: Meaning;
  /** What the network ends in; null where no softmax and no sigmoid does. */
  readonly end: 'softmax' | 'sigmoid' | null;
}

/**
 * The output with class scores: float32 [N, classes] or [N, classes, 1, ...], with at least two classes. Of several,
 * it is the one named `logits`, otherwise the first. Null if there is none: maps, single numbers and integers are not
 * class scores.
 * @param output the one that is asked about: it holds them if it ends in a softmax, whatever the others are
 */
export function classScoresOf(program: Program, output?: string): ClassScores | null {
  const fitting = program.outputs.flatMap(({ name, value }, index) => {
    const { dtype, shape } = program.values[value]!;
    const classes = shape[1] ?? 1;
    const fits = dtype === 'float32' && classes > 1 && classes === sizeOf(shape.slice(1));
    return fits ? [{ index, name, meaning: meaningOf(program, value), end: endOf(program, value) }] : [];
  });
  const proven = fitting.find(({ name, end }) => name === output && end === 'softmax');
  return proven ?? fitting.find(({ name }) => name === 'logits') ?? fitting[0] ?? null;
}

/** Every item passes an exit with this threshold: no probability reaches it. */
export const NEVER = 2;

/** The ways to say how sure class scores are. */
export const CONFIDENCES = ['probability', 'margin'] as const;
/**
 * `probability`: the largest probability. `margin`: its share in the two largest, which is the sigmoid of the difference between their logits. An answer changes
 * where another class is near, however likely both are: of many classes, the margin orders answers better.
 */
export type Confidence = (typeof CONFIDENCES)[number];

/** A step's result, by what it is called and its shape. */
type AddValue = (name: string, shape: readonly number[], dtype?: ValueType) => ValueId;

/**
 * Steps that compute how sure class scores are, [N, 1], in [0, 1]; NaN if a score is.
 * @param scores [N, classes]
 * @param some only these classes may be the answer
 */
export function surenessSteps(
  add: AddValue,
  scores: ValueId,
  [items, classes]: readonly [number, number],
  meaning: Meaning,
  confidence: Confidence = 'probability',
  some?: { readonly indices: ValueId; readonly count: number },
): { readonly steps: readonly Step[]; readonly result: ValueId } {
  const steps: Step[] = [];
  let likely = scores;
  if (meaning === 'logits') {
    likely = add('probabilities', [items, classes]);
    steps.push({ op: 'softmax', inputs: [scores], outputs: [likely], attrs: { axis: 1, log: false } });
  }
  const all = likely;
  const count = some?.count ?? classes;
  if (some) {
    likely = add('shared', [items, count]);
    steps.push({ op: 'gather', inputs: [all, some.indices], outputs: [likely], attrs: { axis: 1 } });
  }
  const spread = add('spread', [items, 1, count]);
  const largest = add('largest', [items, 1]);
  steps.push(
    { op: 'reshape', inputs: [likely], outputs: [spread], attrs: {} },
    { op: 'globalPool', inputs: [spread], outputs: [largest], attrs: { kind: 'max' } },
  );
  if (confidence === 'probability') return { steps, result: largest };
  const [two, places] = [add('two', [items, 2]), add('places', [items, 2], 'int64')];
  const [sum, result] = [add('sum', [items, 1]), add('score', [items, 1])];
  steps.push(
    { op: 'topK', inputs: [all], outputs: [two, places], attrs: { axis: 1, largest: true } },
    { op: 'reduce', inputs: [two], outputs: [sum], attrs: { kind: 'sum', axes: [1] } },
    { op: 'binary', inputs: [largest, sum], outputs: [result], attrs: { kind: 'div', act: NO_ACTIVATION } },
  );
  return { steps, result };
}

/** What the class scores in `value` mean. The graph decides, never the numbers. */
export function meaningOf(program: Program, value: ValueId): Meaning {
  const finish = finishOf(program, value);
  return finish === undefined || (finish.op === 'softmax' && finish.log) ? 'logits' : 'probabilities';
}

/** Whether `value` is what a softmax or a sigmoid gives. */
export function endOf(program: Program, value: ValueId): ClassScores['end'] {
  const finish = finishOf(program, value);
  if (!finish) return null;
  return finish.op === 'softmax' ? 'softmax' : 'sigmoid';
}

/** The last operation of a network, which turns logits into class scores. */
export type Finish =
  | { readonly op: 'softmax'; readonly log: boolean }
  | { readonly op: 'unary'; readonly act: Activation };

/** The step that turns logits into scores as `finish` does. */
export function finishStep(finish: Finish, logits: ValueId, result: ValueId): Step {
  const ports = { inputs: [logits], outputs: [result] };
  return finish.op === 'softmax'
    ? { op: 'softmax', ...ports, attrs: { axis: 1, log: finish.log } }
    : { op: 'unary', ...ports, attrs: { act: finish.act } };
}

/** How the network turns logits into `value`; undefined if it answers with logits. */
export function finishOf(program: Program, value: ValueId): Finish | undefined {
  // The steps of a policy's exits, which also write the answer, come after those of the network.
  const step = program.steps.find(({ outputs }) => outputs.includes(value));
  if (step?.op === 'reshape') return finishOf(program, step.inputs[0]!);
  if (step?.op === 'softmax') {
    const { shape } = program.values[value]!;
    // A softmax along another axis doesn't give class probabilities.
    const overClasses = shape[step.attrs.axis] === sizeOf(shape.slice(1));
    return overClasses ? { op: 'softmax', log: step.attrs.log } : undefined;
  }
  const act = step && activationOf(step);
  return act?.kind === 'sigmoid' || act?.kind === 'hardSigmoid' ? { op: 'unary', act } : undefined;
}

function activationOf({ attrs }: Step): Activation | undefined {
  return 'act' in attrs ? attrs.act : undefined;
}

/** Probabilities of the classes. */
export function probabilities(scores: ArrayLike<number>, meaning: Meaning): Float64Array {
  return meaning === 'logits' ? softmax(scores) : Float64Array.from(scores);
}

/**
 * Half the sum of the differences between the probabilities of two rows of class scores, in [0, 1]. NaN scores have
 * the largest distance from any others.
 */
export function totalVariation(a: Float32Array, b: Float32Array, meaning: Meaning): number {
  const [p, q] = [probabilities(a, meaning), probabilities(b, meaning)];
  const distance = p.reduce((sum, value, i) => sum + Math.abs(value - q[i]!), 0) / 2;
  return Number.isNaN(distance) ? 1 : Math.min(1, distance);
}

/** The `k` most probable classes as [class, probability], best first; of equal ones, the lower index. */
export function topClasses(scores: Float32Array, meaning: Meaning, k: number): [number, number][] {
  const best: number[] = [];
  for (let index = 0; index < scores.length; index++) {
    const score = scores[index]!;
    if (best.length === k && !(score > scores[best[k - 1]!]!)) continue;
    let place = Math.min(best.length, k - 1);
    for (; place > 0 && score > scores[best[place - 1]!]!; place--) best[place] = best[place - 1]!;
    best[place] = index;
  }
  const likely = probabilities(scores, meaning);
  return best.map((index) => [index, likely[index]!]);
}
