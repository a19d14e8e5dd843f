/**
 * Fits exits of networks that answer with a vector or a number. A head predicts the network's output from what it sees of a block, by
 * ridge regression. A second one predicts how far off that will be, which orders the items as a class's confidence does (Xin et al. 2021,
 * "BERxiT"; Schuster et al. 2021, "Consistent accelerated inference via confident adaptive transformers"). It learns from losses of items
 * that the regression has not seen.
 */
import type { Backend } from '../../backends/backend.js';
import { ResidualSkipError } from '../../errors.js';
import type { Program } from '../../model/program/program.js';
import { CHUNK, Evaluator, Programs, runAll } from '../run/evaluator.js';
import type { FitImages } from '../run/items.js';
import type { FittedExit } from './chain.js';
import { type ExitPoint, exitPoints, withFeatures } from './exit-points.js';
import { type Fitting, MAX_BYTES, MIN_ROWS, rowsOf } from './fit.js';
import { copiesOf, imageShape } from './rows.js';
import { type Fold, PointFit, type PointFitting } from './vector-fit.js';

export type VectorFitting = Pick<Fitting, 'copies' | 'foldOf' | 'chains' | 'behind' | 'onItems'> &
  PointFitting;

/** Most inputs of a head where there is a choice: the work of solving grows with their cube. */
const MAX_WIDTH = 1024;
/** Most directions in which the score's head sees how far an item is from the mean, and its largest share of the network's multiply-adds. */
const [DIRECTIONS, MAX_SHARE] = [32, 0.01];

/**
 * Fits exits with heads, in the network's order: one list of them for each of `chains`.
 * @throws ResidualSkipError INVALID_DATA when no image can be used, or the network answers with NaN
 */
export async function fitVectorExits(
  backend: Backend,
  network: Program | Programs,
  source: FitImages,
  fitting: VectorFitting,
): Promise<FittedExit[][]> {
  const { chains, behind } = fitting;
  const programs = Programs.of(network);
  const points = exitPoints(programs.main, source.count, MAX_WIDTH).filter(
    ({ block }) => behind?.has(block.name) ?? true,
  );
  const exits: FittedExit[][] = chains.map(() => []);
  if (points.length === 0) return exits;
  const folds = await read(backend, programs, source, points, fitting);
  for (const [p, { block, features, width }] of points.entries()) {
    const affordable = Math.floor((MAX_SHARE * programs.main.cost.multiplyAdds) / (2 * width));
    const directions = Math.max(2, Math.min(DIRECTIONS, affordable));
    const heads = new PointFit(backend, folds, p, directions, fitting);
    for (const [c, chain] of chains.entries()) {
      const head = { features, ...(await heads.head(chain)) };
      exits[c]!.push({ after: block.name, head });
    }
    fitting.onItems((folds.flatMap(({ inputs }) => inputs).length * chains.length) / points.length);
  }
  return exits;
}

async function read(
  backend: Backend,
  programs: Programs,
  source: FitImages,
  points: readonly ExitPoint[],
  { seed, copies, foldOf, chains, vectorOf, onItems }: VectorFitting,
): Promise<Fold[]> {
  const { main, shapes } = programs;
  const folds = [...new Set(chains.flat())].map(
    (): Fold => ({ inputs: [], sizes: [], answers: [], features: points.map(() => []) }),
  );
  const ofTokens = main.values[main.outputs[0]!.value]!.shape.length === 3 && vectorOf !== undefined;
  const bytes = 4 * points.reduce((sum, { width }) => sum + width, 0);
  const max = Math.max(MIN_ROWS, MAX_BYTES / bytes);
  const wanted = Math.min(max, rowsOf(main, source.count, copies));
  const evaluator = new Evaluator(
    backend,
    programs.map((one) => withFeatures(one, points)),
  );
  try {
    let left = wanted;
    for await (const chunk of copiesOf(source, wanted, imageShape(main), {}, seed)) {
      const inputs = chunk.map(({ input }) => input);
      const outcomes = await evaluator.run(inputs, evaluator.policy(runAll), onItems);
      for (const [i, { outputs }] of outcomes.entries()) {
        const fold = folds[foldOf(chunk[i]!.image)]!;
        const [output, ...seen] = outputs;
        const answer = ofTokens ? vectorOf!(outcomes[i]!, inputs[i]!) : output!;
        // Of items of one shape, nothing depends on the input.
        fold.inputs.push(shapes ? inputs[i]! : new Float32Array(0));
        fold.answers.push(answer);
        fold.sizes.push(output!.length);
        for (const [p, list] of fold.features.entries()) list.push(seen[p]!);
      }
      left -= CHUNK;
      if (left <= 0) break;
    }
  } finally {
    evaluator.release();
  }
  if (folds.every(({ inputs }) => inputs.length > 0)) return folds;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `fit: too few of its ${source.count} images can be used: they can't be read, or are among the data`,
  );
}
