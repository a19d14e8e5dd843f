import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program.js';
import type { CalibrationItem } from './calibration.js';
import { checkAnswers } from './checks.js';
import { Evaluator, runAll, withFeatures } from './evaluator.js';
import { answersOf } from './judge.js';
import { type FullPass, fitExits, fitGates, type Lever } from './levers.js';

/** All levers of a program, fitted on `items`, in the order in which they stand in the network. */
export async function fitLevers(
  backend: Backend,
  program: Program,
  items: readonly CalibrationItem[],
  className: (index: number) => string,
  onItems: (count: number) => void,
): Promise<Lever[]> {
  const evaluator = new Evaluator(backend, withFeatures(program));
  try {
    const inputs = items.map(({ input }) => input);
    const outcomes = await evaluator.run(inputs, evaluator.policy(runAll), onItems);
    const answers = answersOf(outcomes);
    checkAnswers(answers, className);
    const full: FullPass = { items: inputs, outcomes, answers };
    const levers = [...fitExits(program, full, 0), ...(await fitGates(evaluator, full, 0, onItems))];
    // In the network's order: a gate stands before its block, an exit behind it.
    const place = ({ kind, block }: Lever) =>
      2 * program.blocks.findIndex(({ name }) => name === block) + (kind === 'exit' ? 1 : 0);
    return levers.sort((a, b) => place(a) - place(b));
  } finally {
    evaluator.release();
  }
}
