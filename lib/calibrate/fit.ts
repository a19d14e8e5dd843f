import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program.js';
import { altered } from './augment.js';
import type { CalibrationItem } from './calibration.js';
import { checkAnswers } from './checks.js';
import { Evaluator, runAll } from './evaluator.js';
import { fullPass, rowOf } from './features.js';
import { checkedAnswer } from './judge.js';
import {
  answerOf,
  exitPlaces,
  FOLDS,
  fitExits,
  fitGates,
  gatePlaces,
  type Lesson,
  type Lever,
  withRisks,
} from './levers.js';
import { generator } from './random.js';

/** As many copies are made as it takes to have so many rows, if they cost no more than so many multiply-adds. */
const [ROWS, MOST_WORK] = [12_000, 2e12];
/** Mirrored copies teach something when the network answers mirrored images mostly as it answers the images. */
const [MIRROR_ITEMS, MIRROR_AGREEMENT] = [256, 0.8];

/** What fitting costs, in items run by the full network: what `onItems` adds up to. */
export function fittingWork(program: Program, items: number, mostCopies: number): number {
  const [exits, gates] = [exitPlaces(program).length, gatePlaces(program).length];
  const runs = 1 + copiesOf(program, items, mostCopies) + gates;
  return items * (runs + (FOLDS + 1) * (exits + gates)) + 2 * Math.min(items, MIRROR_ITEMS);
}

function copiesOf(program: Program, items: number, most: number): number {
  if (!imageShape(program)) return 0;
  const affordable = MOST_WORK / (items * program.cost.multiplyAdds);
  return Math.floor(Math.min(most, ROWS / items, affordable));
}

/** Channels, height and width of the input; undefined when it is no image. */
function imageShape({ inputs, values }: Program): [number, number, number] | undefined {
  const [items, channels, height, width] = values[inputs[0]!.value]!.shape;
  return items === 1 && width !== undefined ? [channels!, height!, width] : undefined;
}

/**
 * All levers of a program, fitted on `items`, in the order in which they stand in the network.
 * @param items those of `fit`, and from index `order` on those of `order`
 */
export async function fitLevers(
  backend: Backend,
  program: Program,
  items: readonly CalibrationItem[],
  { order, seed, copies }: { readonly order: number; readonly seed: number; readonly copies: number },
  className: (index: number) => string,
  onItems: (count: number) => void,
): Promise<Lever[]> {
  const evaluator = new Evaluator(backend, program);
  try {
    const inputs = items.map(({ input }) => input);
    const shape = imageShape(program);
    const mirror = shape !== undefined && (await mindsNoMirror(evaluator, inputs, shape, onItems));
    const rows = items.length * (1 + copiesOf(program, items.length, copies));
    const full = await fullPass(
      backend,
      program,
      lessonInputs(inputs, rows, shape, mirror, seed),
      rows,
      onItems,
    );
    const answers = Array.from({ length: rows }, (_, row) => checkedAnswer(rowOf(full.logits, row)));
    checkAnswers(answers.slice(0, items.length), className);
    const lesson: Lesson = { ...full, items: items.length, order, seed, onItems };
    const exits = await fitExits(program, lesson);
    return withRisks(program, exits, await fitGates(evaluator, inputs, lesson));
  } finally {
    evaluator.release();
  }
}

/** The items, then copies of all of them until there are so many rows. */
function* lessonInputs(
  inputs: readonly Float32Array[],
  rows: number,
  shape: [number, number, number] | undefined,
  mirror: boolean,
  seed: number,
): Generator<Float32Array> {
  const random = generator(seed);
  for (let row = 0; row < rows; row++) {
    const input = inputs[row % inputs.length]!;
    const copy = Math.floor(row / inputs.length);
    yield copy > 0 && shape ? altered(input, shape, mirror && copy % 2 === 1, random) : input;
  }
}

async function mindsNoMirror(
  evaluator: Evaluator,
  inputs: readonly Float32Array[],
  shape: [number, number, number],
  onItems: (count: number) => void,
): Promise<boolean> {
  const some = inputs.slice(0, MIRROR_ITEMS);
  const still = () => 0.5;
  const answers = async (images: readonly Float32Array[]) =>
    (await evaluator.run(images, evaluator.policy(runAll), onItems)).map(({ outputs }) =>
      answerOf(outputs[0]!),
    );
  const [plain, mirrored] = [
    await answers(some),
    await answers(some.map((input) => altered(input, shape, true, still))),
  ];
  return plain.filter((answer, i) => answer === mirrored[i]).length >= MIRROR_AGREEMENT * some.length;
}
