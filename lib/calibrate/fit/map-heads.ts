/**
 * Fits exits of networks that answer with a map: class scores of pixels, an image, depths. A head predicts, from each place of a block's
 * map, what the network's last layers would get there, by ridge regression over places. Its score says how small the loss of an item
 * will be; it learns from losses on items that the regression has not seen.
 */
import type { Backend } from '../../backends/backend.js';
import { ResidualSkipError } from '../../errors.js';
import { Growth } from '../../model/program/grow.js';
import type { Program } from '../../model/program/program.js';
import { generator } from '../../numeric/random.js';
import { sizeOf } from '../../numeric/shapes.js';
import type { Head } from '../../skip/head.js';
import { distanceOf } from '../../skip/losses.js';
import { mapSteps, tailOf } from '../../skip/map-head.js';
import { isOfNumbers, isOfPixels, partsOf } from '../../skip/promise.js';
import type { ParsedOptions } from '../options.js';
import { atOnce, Evaluator, Programs, runAll } from '../run/evaluator.js';
import type { FitImages } from '../run/items.js';
import type { FittedExit } from './chain.js';
import { mapPoints } from './exit-points.js';
import { MAX_BYTES } from './fit.js';
import { MapPoint, type Seen } from './map-point.js';
import { copiesOf } from './rows.js';
import type { VectorFitting } from './vector-heads.js';

/** Most places of an item's map that the regression sees. */
const MAX_PLACES = 32;

/** Whether exits can answer with a map, as a metric needs it. */
export function answersWithMap(
  program: Program,
  { metric, pools }: Pick<ParsedOptions, 'metric' | 'pools'>,
): boolean {
  const { shape = [] } = program.values[program.outputs[0]?.value ?? -1] ?? {};
  const single = shape.length < 3 || shape[1] === sizeOf(shape.slice(1)) || pools === true;
  const fits = isOfPixels(metric) || (isOfNumbers(metric) && partsOf(metric).name !== 'recall');
  return !single && fits && tailOf(program) !== undefined;
}

/** Fits exits with heads, in the network's order: one list of them for each of `chains`. */
export async function fitMapExits(
  backend: Backend,
  network: Program | Programs,
  source: FitImages,
  fitting: VectorFitting,
): Promise<FittedExit[][]> {
  const { chains, behind } = fitting;
  const programs = Programs.of(network);
  const tail = tailOf(programs.main)!;
  const points = mapPoints(programs.main, source.count)
    .filter(({ block }) => behind?.has(block.name) ?? true)
    .map(({ block }) => new MapPoint(backend, programs.main, block.name, tail, fitting));
  if (points.length === 0) return chains.map(() => []);
  const fitter = new MapFitter(backend, programs, source, points, fitting);
  await fitter.readPlaces();
  const losses = new Map<string, Losses>();
  for (const folds of chains) {
    for (const fold of folds) {
      const others = folds.filter((other) => other !== fold);
      const asked = chains.flatMap((chain) => chain.filter((one) => sameFolds(chain, [...others, one])));
      const key = others.join();
      if (!losses.has(key)) losses.set(key, await fitter.lossesOf(others, new Set(asked)));
    }
  }
  const exits: FittedExit[][] = [];
  for (const folds of chains) {
    const found = folds.map((fold) => losses.get(folds.filter((other) => other !== fold).join())!.get(fold)!);
    const chain: FittedExit[] = [];
    for (const [p, point] of points.entries()) {
      const seen = found.flatMap((items) => items.map((item) => item[p]!));
      chain.push({ after: point.after, head: await point.head(folds, seen) });
    }
    exits.push(chain);
  }
  return exits;
}

const sameFolds = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((fold) => b.includes(fold));

/** By fold, item and exit point. */
type Losses = ReadonlyMap<number, readonly (readonly Seen[])[]>;

class MapFitter {
  constructor(
    private readonly backend: Backend,
    private readonly programs: Programs,
    private readonly source: FitImages,
    private readonly points: readonly MapPoint[],
    private readonly fitting: VectorFitting,
  ) {}

  /** Reads places of the items, from which the regressions learn. */
  async readPlaces(): Promise<void> {
    const { points, fitting } = this;
    const random = generator(fitting.seed);
    const bytes = 4 * points.reduce((sum, { columns }) => sum + columns, 0);
    const places = Math.max(1, Math.min(MAX_PLACES, Math.floor(MAX_BYTES / (bytes * this.source.count))));
    const program = this.programs.map((one) => withMaps(one, points));
    const { main } = this.programs;
    const first = main.outputs.length;
    const size = sizeOf(main.values[tailOf(main)!.map]!.shape);
    const folds = new Set<number>();
    await this.#run(
      program,
      () => true,
      async (all, images) => {
        // Places of maps of one size are as good as those of all.
        const usual = all.map(({ outputs }) => outputs[first]!.length === size);
        const outcomes = all.filter((_, i) => usual[i]);
        const of = images.filter((_, i) => usual[i]).map(fitting.foldOf);
        if (outcomes.length === 0) return;
        for (const fold of of) folds.add(fold);
        for (const [p, point] of points.entries()) {
          const maps = outcomes.map(({ outputs }) => ({ x: outputs[first + 1 + p]!, y: outputs[first]! }));
          point.add(maps, of, places, random);
        }
      },
    );
    for (const point of points) point.close();
    if (folds.size === new Set(fitting.chains.flat()).size) return;
    throw new ResidualSkipError(
      'INVALID_DATA',
      `fit: too few of its ${this.source.count} images can be used: they can't be read, or are among the data`,
    );
  }

  /** Of heads that these folds fit, on the items of others. */
  async lossesOf(folds: readonly number[], on: ReadonlySet<number>): Promise<Losses> {
    const { points, fitting } = this;
    const { vectorOf = ({ outputs }) => outputs[0]!, promises } = fitting;
    const distance = distanceOf(promises);
    const heads = new Map<string, Head>();
    for (const point of points) heads.set(point.after, await point.plainHead(folds));
    const program = this.programs.map((one) => withAnswers(one, heads));
    const first = this.programs.main.outputs.length;
    const found = new Map([...on].map((fold) => [fold, [] as Seen[][]]));
    await this.#run(
      program,
      (image) => on.has(fitting.foldOf(image)),
      async (outcomes, images, inputs) => {
        for (const [i, outcome] of outcomes.entries()) {
          const full = vectorOf(outcome, inputs[i]!);
          const seen = points.map((_, p) => {
            const [answer, hidden] = outcome.outputs.slice(first + 2 * p);
            return {
              hidden: hidden!,
              loss: distance(vectorOf({ ...outcome, outputs: [answer!] }, inputs[i]!), full),
            };
          });
          found.get(fitting.foldOf(images[i]!))!.push(seen);
        }
      },
    );
    return found;
  }

  /** Runs those images, as many at a time as fit into memory. */
  async #run(
    programs: Programs,
    uses: (image: number) => boolean,
    each: (
      outcomes: Awaited<ReturnType<Evaluator['run']>>,
      images: readonly number[],
      inputs: readonly Float32Array[],
    ) => Promise<void>,
  ): Promise<void> {
    const { source, fitting, backend } = this;
    const evaluator = new Evaluator(backend, programs);
    const size = atOnce(programs.main);
    try {
      for await (const chunk of copiesOf(source, source.count, undefined, {}, fitting.seed)) {
        const some = chunk.filter(({ image }) => uses(image));
        for (let from = 0; from < some.length; from += size) {
          const part = some.slice(from, from + size);
          const inputs = part.map(({ input }) => input as Float32Array);
          const outcomes = await evaluator.run(inputs, evaluator.policy(runAll), fitting.onItems);
          await each(
            outcomes,
            part.map(({ image }) => image),
            inputs,
          );
        }
      }
    } finally {
      evaluator.release();
    }
  }
}

/** `program` with the map that is predicted, and the block's map at each point, as additional outputs. */
function withMaps(program: Program, points: readonly MapPoint[]): Program {
  const growth = new Growth(program);
  // A step of its own writes every output of a program.
  const show = (at: number, name: string, id: number) => {
    const shown = growth.value(name, 'float32', growth.valueOf(id).shape);
    growth.insert(at, [{ op: 'reshape', inputs: [id], outputs: [shown], attrs: {} }]);
    growth.output(name, shown);
  };
  show(program.steps.length, 'predicted map', tailOf(program)!.map);
  for (const { after } of points) {
    const { end, output } = program.blocks.find(({ name }) => name === after)!;
    show(end, `map behind ${after}`, output);
  }
  return growth.build();
}

/** `program` with the answer of each head, and what the last layer of its score reads, as additional outputs. */
function withAnswers(program: Program, heads: ReadonlyMap<string, Head>): Program {
  const growth = new Growth(program);
  const tail = tailOf(program)!;
  for (const [after, head] of heads) {
    const { end, output } = program.blocks.find(({ name }) => name === after)!;
    const { steps, answer, hidden } = mapSteps(growth, after, head, output, tail);
    growth.insert(end, steps);
    for (const id of [answer, hidden]) {
      const { name, dtype, shape } = growth.valueOf(id);
      const shown = growth.value(`shown ${name}`, dtype, shape);
      growth.insert(end, [{ op: 'reshape', inputs: [id], outputs: [shown], attrs: {} }]);
      growth.output(`shown ${name}`, shown);
    }
  }
  return growth.build();
}
