/** What a network's answers are: by the caller's word, or by what the graph and the files beside it prove. See docs/tasks.md. */
import { z } from 'zod';
import type { Program, Step, ValueId } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { type Metric, partsOf } from '../skip/promise.js';
import { type ClassScores, endOf } from '../skip/scores.js';
import { late } from '../util/late.js';

export const TASKS = [
  'single-label',
  'multi-label',
  'regression',
  'ordinal',
  'embedding',
  'segmentation',
  'detection',
  'sequence',
  'ranking',
  'custom',
] as const;
export type TaskName = (typeof TASKS)[number];

/** What the caller knows of a network's answers. */
export interface TaskOptions {
  /**
   * What the answers are; needed where neither the graph nor the files beside it say so. `single-label`: each item belongs to the class
   * of its largest score; `multi-label`: to each whose score is above a threshold; `ordinal`: classes are grades, in order;
   * `regression`: numbers; `embedding`: a vector; `segmentation`: a class for each pixel; `detection`: boxes with scores; `sequence`: a
   * class for each token or step; `ranking`: scores whose order counts; `custom`: what the option `loss` of `calibrate` says.
   */
  readonly task?: TaskName | undefined;
}

/** Schema fields of TaskOptions. */
export const taskShape = late(() => ({ task: z.enum(TASKS).optional() }));

/** Of each task the metrics of its own, the default first. */
const METRICS_OF: Readonly<Record<TaskName, readonly [Metric, ...string[]]>> = {
  'single-label': ['disagreement', 'accuracy', 'probability'],
  'multi-label': ['labels', 'missed', 'added'],
  regression: ['relative'],
  ordinal: ['ordinal', 'disagreement', 'accuracy', 'probability'],
  embedding: ['cosine'],
  segmentation: ['pixels', 'miou'],
  detection: ['boxes'],
  sequence: ['tokens', 'ctc'],
  ranking: ['ranking'],
  custom: ['custom'],
};
/** Metrics of numbers, whatever they mean. */
const OF_NUMBERS = ['cosine', 'recall', 'relative', 'absolute', 'excess'];

export const defaultMetric = (task: TaskName): Metric => METRICS_OF[task][0];

/** Metrics that go with a task, as messages write them; undefined if this one does. */
export function metricsInstead(task: TaskName, metric: Metric): string | undefined {
  const { name } = partsOf(metric);
  if (METRICS_OF[task].includes(name) || OF_NUMBERS.includes(name)) return undefined;
  return METRICS_OF[task].join(', ');
}

/** What is known of a network's answers. */
interface Answers extends TaskOptions {
  readonly what: 'image' | 'text' | 'feed';
  readonly name: string;
  readonly output: string;
  /** Null for a network without classes. */
  readonly labels: readonly string[] | null;
  readonly labelsKnown: boolean;
  /** As config.json beside it says. */
  readonly problem: string | undefined;
  readonly architecture?: string | undefined;
}

/** Why a network's answers can't be compared as classes. */
export interface Doubt {
  readonly reason: string;
  /** How the caller can settle it; undefined where the network has no class scores. */
  readonly remedy: string | undefined;
}

/** What config.json calls networks whose answer isn't one class. */
const OTHER_PROBLEMS: Readonly<Record<string, TaskName>> = {
  regression: 'regression',
  multi_label_classification: 'multi-label',
};

/** What config.json says that a network was trained for, if that isn't one class of each item. */
export const problemTask = (problem = ''): TaskName | undefined =>
  Object.hasOwn(OTHER_PROBLEMS, problem) ? OTHER_PROBLEMS[problem] : undefined;

/** Ends of the names in `architectures` of config.json. */
const ARCHITECTURES: readonly (readonly [RegExp, TaskName])[] = [
  [/ForTokenClassification$/, 'sequence'],
  [/For(Semantic|Universal)Segmentation$/, 'segmentation'],
  [/ForObjectDetection$/, 'detection'],
  [/ForDepthEstimation$/, 'regression'],
];

/** What the name of a network's class in Hugging Face's library says. */
export const architectureTask = (architecture = ''): TaskName | undefined =>
  ARCHITECTURES.find(([pattern]) => pattern.test(architecture))?.[1];

/**
 * Why nothing says that each item belongs to the class of its largest score; undefined where something does.
 * @param scores the output with class scores; null if there is none
 * @param labelled whether the data has labels
 */
export function doubtOf(
  { name, output, labels, labelsKnown, problem, task }: Omit<Answers, 'what'>,
  scores: Pick<ClassScores, 'name' | 'end'> | null,
  labelled: boolean,
): Doubt | undefined {
  const what = `output '${output}' of ${name}`;
  if (scores?.name !== output) {
    return { reason: `${what} isn't a row of two scores or more for each item`, remedy: undefined };
  }
  if (task === 'single-label' || task === 'ordinal') return undefined;
  if (task !== undefined) return { reason: `the task is ${task}`, remedy: undefined };
  const remedy =
    "if an item's class is that of the largest score, say so (--task single-label, task: 'single-label')";
  if (!labels) return { reason: `${name} has none`, remedy };
  if (scores.end === 'sigmoid') {
    return { reason: `${what} ends in a sigmoid, whose classes don't exclude each other`, remedy };
  }
  if (problemTask(problem)) {
    return { reason: `config.json beside ${name} says problem_type ${problem}`, remedy };
  }
  if (scores.end === 'softmax' || labelsKnown || labelled) return undefined;
  const reason =
    `nothing says that ${what} holds class scores: it doesn't end in a softmax, no config.json beside it has id2label, and no ` +
    'labels of the data were read';
  return { reason, remedy };
}

/**
 * What the answers in an output are, if the graph or the files beside it prove it and each item doesn't belong to one class.
 * @returns undefined where nothing does
 */
export function provenTask(
  { what, labels, problem, architecture = '', output }: Answers,
  program: Program,
): TaskName | undefined {
  const trained = problemTask(problem);
  if (trained) return trained;
  const named = architectureTask(architecture);
  if (named) return named;
  const { value } = program.outputs.find(({ name }) => name === output)!;
  const { shape, dtype } = program.values[value]!;
  const isRow = shape.length > 1 && shape[1]! > 1 && shape[1] === sizeOf(shape.slice(1));
  if (isRow && endOf(program, value) === 'sigmoid') return 'multi-label';
  if (isRow && endsInUnit(program, value)) return 'embedding';
  const last = writerOf(program, value);
  const places = shape.slice(1).filter((length) => length > 1).length;
  if (last?.op === 'argMax' && places === 2 && dtype !== 'float32') return 'segmentation';
  if (last?.op === 'softmax' && last.attrs.axis === 1 && shape.length === 4) return 'segmentation';
  if (last?.op === 'softmax' && last.attrs.axis === 2 && shape.length === 3) return 'sequence';
  return what === 'text' && !labels && sizeOf(shape.slice(1)) !== 1 ? 'embedding' : undefined;
}

/** The step that makes a value, but for its shape and type; of a choice, that of what is chosen otherwise. */
function writerOf(program: Program, value: ValueId): Step | undefined {
  const step = program.steps.find(({ outputs }) => outputs.includes(value));
  if (step?.op === 'where') return writerOf(program, step.inputs[2]!);
  return step?.op === 'reshape' || step?.op === 'cast' ? writerOf(program, step.inputs[0]!) : step;
}

/** Steps between a vector and its length, by which it is divided, that don't change the length but for a least one. */
const KEEPING = ['unary', 'reshape', 'expand', 'binary'];

/** Whether the value is a vector divided by its own length. */
function endsInUnit(program: Program, value: ValueId): boolean {
  const step = writerOf(program, value);
  if (step?.op !== 'binary' || step.attrs.kind !== 'div') return false;
  const [vector, length] = step.inputs as [ValueId, ValueId];
  let at: Step | undefined = writerOf(program, length);
  for (let steps = 0; at && KEEPING.includes(at.op) && steps < 8; steps++)
    at = writerOf(program, at.inputs[0]!);
  if (at?.op !== 'reduce' || at.attrs.kind !== 'sum') return false;
  // The sum of the squares of the same vector.
  const square = writerOf(program, at.inputs[0]!);
  return square?.inputs.includes(vector) ?? false;
}
