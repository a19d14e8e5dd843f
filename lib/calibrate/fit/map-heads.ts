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
import type { Head, Layer } from '../../skip/head.js';
import { distanceOf } from '../../skip/losses.js';
import { mapSteps, ratioOf, surenessWidth, type Tail, tailOf } from '../../skip/map-head.js';
import { isOfNumbers, isOfPixels, partsOf } from '../../skip/promise.js';
import type { FitImages, ParsedOptions } from '../options.js';
import { atOnce, Evaluator, Programs, runAll } from '../run/evaluator.js';
import { principal } from './basis.js';
import type { FittedExit } from './chain.js';
import { mapPoints } from './exit-points.js';
import { MAX_BYTES } from './fit.js';
import { type Scale, scaleOf, standardise } from './head-training.js';
import { type Matrix, matrix } from './matrices.js';
import { NormalEquations } from './ridge.js';
import { copiesOf } from './rows.js';
import {
  hiddenOf,
  joined,
  type Part,
  raw,
  robust,
  scoreTargets,
  stacked,
  type VectorFitting,
} from './vector-heads.js';

/** Most places of an item's map that the regression sees. */
const MAX_PLACES = 32;
/** Most directions in which the score sees a place, and its largest share of the network's multiply-adds. */
const [DIRECTIONS, MAX_SHARE] = [12, 0.01];
/** Penalties of the regressions. */
const [PENALTY, SCORE_PENALTY] = [1e-3, 1e-2];

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

/** What an item shows of a head that has not seen it: what the score's last layer reads, and the loss. */
interface Seen {
  readonly hidden: Float32Array;
  readonly loss: number;
}

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
    const { vectorOf = ({ outputs }) => outputs[0]!, metric } = fitting;
    const distance = distanceOf(metric);
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
      for await (const chunk of copiesOf(source, source.count, undefined, false, fitting.seed)) {
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

/** The heads behind one block. */
class MapPoint {
  readonly #channels: number;
  readonly #sides: readonly [number, number];
  readonly #ratio: number;
  /** Channels of the map that is predicted. */
  readonly #predicted: number;
  readonly #features: Head['features'];
  readonly #directions: number;
  /** Rows of places, by fold. */
  readonly #read = new Map<number, { x: Matrix[]; y: Matrix[] }>();
  readonly #parts = new Map<number, Part>();
  readonly #solved = new Map<string, Promise<Layer>>();
  #scale: Scale | undefined;
  #hidden: Layer | undefined;

  constructor(
    private readonly backend: Backend,
    { blocks, values, cost }: Program,
    readonly after: string,
    tail: Tail,
    private readonly fitting: VectorFitting,
  ) {
    const { shape } = values[blocks.find(({ name }) => name === after)!.output]!;
    const target = values[tail.map]!.shape;
    this.#channels = shape[1]!;
    this.#sides = [shape[2]!, shape[3]!];
    this.#ratio = ratioOf(shape, target)!;
    this.#predicted = target[1]!;
    this.#features = isOfPixels(fitting.metric) ? 'classes' : 'places';
    const affordable = Math.floor((MAX_SHARE * cost.multiplyAdds) / (2 * sizeOf(shape)));
    this.#directions = Math.max(1, Math.min(DIRECTIONS, affordable));
  }

  /** Numbers of a place that are kept. */
  get columns(): number {
    return this.#channels + this.#predicted * this.#ratio ** 2;
  }

  /**
   * Reads some places of some items.
   * @param maps the block's, and what the network's last layers get
   * @param folds of the items
   */
  add(
    maps: readonly { x: Float32Array; y: Float32Array }[],
    folds: readonly number[],
    places: number,
    random: () => number,
  ): void {
    const taken = maps.map(() =>
      Array.from({ length: places }, () => Math.floor(random() * sizeOf(this.#sides))),
    );
    const x = maps.map((map, i) => this.#rows(map.x, taken[i]!, this.#channels, 1));
    const y = maps.map((map, i) => this.#rows(map.y, taken[i]!, this.#predicted, this.#ratio));
    if (!this.#scale) {
      const seen = below(x);
      this.#scale = scaleOf(seen);
      standardise(seen, this.#scale);
      // Distances from the mean along directions.
      const { directions, mean } = principal(this.backend, seen, this.#directions, this.fitting.seed);
      this.#hidden = raw(hiddenOf(directions, mean), this.#scale);
    }
    for (const [i, fold] of folds.entries()) {
      const read = this.#read.get(fold) ?? { x: [], y: [] };
      this.#read.set(fold, read);
      read.x.push(x[i]!);
      read.y.push(y[i]!);
    }
  }

  /** No more places follow. */
  close(): void {
    for (const [fold, read] of this.#read) {
      const [x, y] = [below(read.x), below(read.y)];
      standardise(x, this.#scale!);
      const sums = new NormalEquations(x.columns, y.columns);
      sums.add(this.backend, x, y);
      this.#parts.set(fold, { x, y, sums });
    }
    this.#read.clear();
  }

  /** A head of these folds whose score says nothing yet. */
  async plainHead(folds: readonly number[]): Promise<Head> {
    const width = this.#hidden!.bias.length + surenessWidth(this.#features, this.#predicted);
    const nothing = { weight: new Float32Array(width), bias: new Float32Array(1) };
    return { features: this.#features, layers: [await this.#layer(folds)], score: [this.#hidden!, nothing] };
  }

  /** @param seen of these folds' items */
  async head(folds: readonly number[], seen: readonly Seen[]): Promise<Head> {
    const x = stacked(seen.map(({ hidden }) => hidden));
    const scale = scaleOf(x);
    standardise(x, scale);
    const sums = new NormalEquations(x.columns, 1);
    sums.add(this.backend, x, scoreTargets(seen.map(({ loss }) => loss)));
    const last = raw(await sums.solve(SCORE_PENALTY), scale);
    return { features: this.#features, layers: [await this.#layer(folds)], score: [this.#hidden!, last] };
  }

  #layer(folds: readonly number[]): Promise<Layer> {
    const key = folds.join();
    const solved =
      this.#solved.get(key) ??
      robust(
        this.backend,
        folds.map((fold) => this.#parts.get(fold)!),
        PENALTY,
      ).then((found) => raw(found, this.#scale!));
    this.#solved.set(key, solved);
    return solved;
  }

  /** A row for each place that was taken: channel by channel, and of each the `ratio` x `ratio` neighbours. */
  #rows(map: Float32Array, places: readonly number[], channels: number, ratio: number): Matrix {
    const [height, width] = this.#sides;
    const own = channels * ratio ** 2;
    const rows = matrix(places.length, own);
    for (const [p, place] of places.entries()) {
      const [top, left] = [ratio * Math.floor(place / width), ratio * (place % width)];
      for (let k = 0; k < own; k++) {
        const [channel, within] = [Math.floor(k / ratio ** 2), k % ratio ** 2];
        const row = channel * ratio * height + top + Math.floor(within / ratio);
        rows.data[p * own + k] = map[row * ratio * width + left + (within % ratio)]!;
      }
    }
    return rows;
  }
}

/** Matrices below each other. */
function below(parts: readonly Matrix[]): Matrix {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return matrix(rows, parts[0]!.columns, joined(parts.map(({ data }) => data)));
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
