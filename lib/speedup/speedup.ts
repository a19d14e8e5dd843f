/**
 * Makes a user's network as fast as his promise allows: `residual-skip speedup` as a function. It tries 8 bits, exits, lower resolutions,
 * given fronts and their combinations on the items that order, and certifies the fastest on items that were used for nothing else.
 */
import { basename } from 'node:path';
import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { calibrateItems } from '../calibrate/calibrate.js';
import { checkClasses } from '../calibrate/checks.js';
import { type CalibrationData, itemOptions, programsOf, readItems } from '../calibrate/data.js';
import { Fitter } from '../calibrate/fit/folds.js';
import type { CalibrationItem, CalibrationOptions } from '../calibrate/options.js';
import { exitsOf } from '../calibrate/order/measure.js';
import { usefulExits } from '../calibrate/order/settings.js';
import { NEVER, tableOf } from '../calibrate/order/table.js';
import type { Calibration } from '../calibrate/report/result.js';
import type { Programs } from '../calibrate/run/evaluator.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import { ResumableBackend } from '../calibrate/run/resume.js';
import { type Split, splitItems } from '../calibrate/split.js';
import { type Task, taskOf } from '../calibrate/task.js';
import { taskShape } from '../classify/class-scores.js';
import { type Data, type DataModel, openDataModel } from '../classify/data-model.js';
import { dataShape, type Images } from '../classify/images.js';
import { Unusable } from '../classify/unusable.js';
import { Work, workShape } from '../classify/work.js';
import { ResidualSkipError } from '../errors.js';
import { joining, type LoadedFront } from '../session/fronts.js';
import { type AnyExit, modelExits } from '../skip/attach.js';
import type { FrontSpec } from '../skip/fronts.js';
import { isVectorMetric, type Metric } from '../skip/promise.js';
import { atOnce } from '../util/slices.js';
import { parsePart } from '../util/validation.js';
import { certifiable, type Goal, type Ladder, ladderOf, laddersOf, ranked } from './choose.js';
import {
  type Candidate,
  floatNetwork,
  GivenFront,
  int8Network,
  joinable,
  lowerResolutions,
  type Network,
} from './networks.js';
import { type SpeedupOptions, speedupShape } from './options.js';
import { Pool, timesOf } from './pool.js';

/** A ladder that was tried, with its predicted figures on the items that order; times as fractions of the full network's mean. */
export interface Tried {
  /** Names of its fronts, then that of the network. */
  readonly rungs: readonly string[];
  /** How many exits the network has. */
  readonly exits: number;
  readonly risk: number;
  readonly mean: number;
  readonly p95: number;
  /** Measured in alternation with the full network, for the fastest ones. */
  readonly measured?: number;
}

/** The result of `speedup`. */
export interface Speedup {
  /** Of the ladder that was chosen; null where none is faster. */
  readonly calibration: Calibration | null;
  /** Files of the ladder's folder, by name. */
  readonly files: ReadonlyMap<string, () => Promise<Uint8Array>>;
  /** The fastest first. */
  readonly tried: readonly Tried[];
  readonly minutes: number;
}

const ALL_OPTIONS = { ...speedupShape, ...dataShape, ...taskShape, ...workShape };
/** Ladders that are timed as they are, of all that were predicted. */
const FINALISTS = 4;
const EFFORT: Effort = { items: 400, milliseconds: 3000 };
/** Settings to test: so many before the boldest one that may be certified, and behind it; of the more careful ones, so many. */
const [BEFORE, BEHIND, CAREFUL] = [8, 12, 6];

/**
 * Makes a ladder that is faster than the network, with a certified limit on changed answers; see docs/ladders.md.
 * @param model ONNX file, or a folder with one, of a network of images or texts with classes
 * @param data as for `calibrate`: a part of it chooses, the rest certifies
 * @returns the ladder; `writeLadder` writes its folder
 * @throws ResidualSkipError what `calibrate` throws; INVALID_ARGUMENT for a front that doesn't fit the model
 */
export async function speedup(model: string, data: Data, options: SpeedupOptions = {}): Promise<Speedup> {
  const start = performance.now();
  const { own, rest } = parsePart(ALL_OPTIONS, options);
  const work = new Work('speedup', own);
  work.check();
  const preparing = { ...rest, backend: 'reference' as const, maxPixels: own.maxPixels };
  const opened = await openDataModel(model, preparing, own.task);
  const engine = new NativeBackend({ isa: rest.isa, threads: rest.threads });
  const unusable = new Unusable([], opened.what);
  try {
    const metric: Metric = own.metric ?? 'disagreement';
    if (isVectorMetric(metric) || !opened.labels) throw forClasses(metric);
    const float = await floatNetwork(opened.file);
    const asked = { ...own, metric };
    const read = await readItems(opened, data, asked, work, (first, labelled) =>
      checkClasses(metric, opened, programsOf(float.model, opened, first).main, labelled),
    );
    const programs = programsOf(float.model, opened, read.typical);
    const prepared = await itemOptions(opened, read.typical, asked, programs.main, work, unusable);
    const backend = own.state === undefined ? engine : await ResumableBackend.open(engine, own.state);
    const end = start + 60_000 * (own.minutes ?? Number.POSITIVE_INFINITY);
    const search = new Search({ opened, read, work, engine, backend, prepared, programs, float, end });
    const result = await search.run(own, rest.threads);
    return { ...result, minutes: (performance.now() - start) / 60_000 };
  } finally {
    engine.release();
    await opened.session.release();
  }
}

function forClasses(metric: Metric): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `speedup: it is for networks with classes and the metrics disagreement, accuracy and probability, not for '${metric}' or vectors; calibrate takes those`,
  );
}

/** What all steps share. */
interface Setup {
  readonly opened: DataModel;
  readonly read: CalibrationData;
  readonly work: Work;
  /** Runs and times programs; `backend` may also remember what they gave. */
  readonly engine: Backend;
  readonly backend: Backend;
  readonly prepared: CalibrationOptions;
  /** Of the float network. */
  readonly programs: Programs;
  readonly float: Network;
  /** When nothing new is begun. */
  readonly end: number;
}

/** A pool with the networks that it was made from. */
interface Made {
  readonly pool: Pool;
  readonly network: Network;
  readonly fronts: readonly { readonly candidate: Candidate; readonly front: LoadedFront }[];
  readonly fitter: Fitter | undefined;
}

class Search {
  readonly #split: Split;
  readonly #made: Made[] = [];
  #tried: Tried[] = [];

  constructor(private readonly setup: Setup) {
    const { float, read } = setup;
    const task = this.#taskOf(setup.programs, float);
    this.#split = splitItems(read.items, task, setup.prepared.fit ? 'order' : 'fit');
  }

  async run(
    { front = [], int8 = true, for: goal }: Pick<SpeedupOptions, 'front' | 'int8' | 'for'>,
    threads: number | undefined,
  ): Promise<Omit<Speedup, 'minutes'>> {
    const { float, opened, work } = this.setup;
    const given = await Promise.all(front.map((path) => GivenFront.open(path, opened)));
    const bytes = int8 ? await this.#int8(given, threads) : undefined;
    const inFloat = [...given.map((one) => one.candidate()), ...lowerResolutions(float)];
    const inBytes = bytes ? [...bytes.given, ...(bytes.own ? lowerResolutions(bytes.own) : [])] : [];
    const whole = bytes?.own ? [{ network: bytes.own, spec: specOfWhole(bytes.own) }] : [];
    await this.#add(float, [...inFloat, ...inBytes, ...whole]);
    if (bytes?.own && !this.#late()) await this.#add(bytes.own, inBytes);
    const shortest: Goal = goal === 'p95' ? 'p95' : 'mean';
    const ladders = this.#made.flatMap(({ pool }) => laddersOf(pool, this.#risk(pool)));
    const refitted = await this.#refitted(ranked(ladders, shortest));
    const best = this.#fastest(ranked([...refitted, ...ladders], shortest));
    this.#tried.sort((a, b) => a.mean - b.mean);
    if (!best) {
      work.note('no ladder is faster than the network within the limit');
      return { calibration: null, files: new Map(), tried: this.#tried };
    }
    return { ...(await this.#certify(best)), tried: this.#tried };
  }

  #late(): boolean {
    return performance.now() > this.setup.end;
  }

  #taskOf(programs: Programs, network: Network): Task {
    return taskOf(this.setup.backend, programs, network.model.sha256, this.#optionsFor(network));
  }

  /** With the float network as the original of an 8-bit one. */
  #optionsFor({ precision }: Network): CalibrationOptions {
    const { prepared, programs, float } = this.setup;
    const original = precision === 'int8' ? { program: programs, sha256: float.model.sha256 } : undefined;
    return { ...prepared, original };
  }

  #risk(pool: Pool): number {
    return certifiable(pool, this.#split.certify.length);
  }

  /** 8-bit forms of the network and of the given fronts. */
  async #int8(given: readonly GivenFront[], threads: number | undefined) {
    const { float, opened, work } = this.setup;
    if (!opened.images) return undefined;
    const images = () => this.#choosing();
    const own = await int8Network(float.name, opened.file, images, { threads }, work);
    const fronts: Candidate[] = [];
    for (const front of given) {
      if (this.#late()) break;
      const network = await int8Network(front.network.name, front.file, images, { threads }, work);
      if (network) fronts.push(front.candidate(network));
    }
    return { own, given: fronts };
  }

  /** Images that ranges of activations are chosen by: never those that certify. */
  async *#choosing(): AsyncGenerator<
    Images extends string | Iterable<infer T> | AsyncIterable<unknown> ? T : never
  > {
    const { byHash, typical } = this.setup.read;
    for (const { sha256, input } of [...this.#split.fit, ...this.#split.order]) {
      const item = byHash.get(sha256);
      yield (item?.load ? await item.load() : { ...typical, data: input }) as never;
    }
  }

  /** Measures a network with all candidates that fit it, and with exits of its own. */
  async #add(network: Network, candidates: readonly Candidate[]): Promise<void> {
    const { opened, read, work } = this.setup;
    const plain = programsOf(network.model, opened, read.typical);
    const fits = (front: LoadedFront) => {
      const binding = new Map(plain.main.inputs.map(({ name, value }) => [name, plain.main.values[value]!]));
      atOnce(joining(plain.main, [front], binding));
    };
    const fronts = await joinable(candidates, network, fits, work);
    const programs = programsOf(
      network.model,
      opened,
      read.typical,
      fronts.map(({ front }) => front),
    );
    const task = this.#taskOf(programs, network);
    const own = modelExits(programs.main.ownExits).map(({ after }): AnyExit => ({ after }));
    const fitter = own.length > 0 || this.#late() ? undefined : new Fitter(task, this.#split);
    const chains = fitter ? await fitter.fit() : [own];
    const pool = await this.#pool(
      network,
      task,
      fronts.map(({ candidate }) => ({ after: candidate.spec.name })),
      chains,
      fitter,
    );
    this.#made.push({ pool, network, fronts, fitter });
  }

  async #pool(
    network: Network,
    task: Task,
    fronts: readonly AnyExit[],
    chains: readonly (readonly AnyExit[])[],
    fitter: Fitter | undefined,
  ): Promise<Pool> {
    const folds: readonly (readonly CalibrationItem[])[] = fitter?.folds ?? [
      [...this.#split.fit, ...this.#split.order],
    ];
    const tables = [];
    for (const [fold, items] of folds.entries()) {
      tables.push(await tableOf(task, [...fronts, ...chains[fold]!], items));
    }
    const inputs = folds.at(-1)!.map(({ input }) => input);
    const times = timesOf(this.setup.engine, task, fronts, chains.at(-1)!, inputs);
    return new Pool(network.name, task, tables, times, fronts.length);
  }

  /** The fastest ladder with exits, with only those of its exits that pay: an item passes through the others, too. */
  async #refitted(all: readonly Ladder[]): Promise<Ladder[]> {
    const best = all.find(({ pool, boldest }) => boldest >= 0 && pool.exits.some(({ head }) => head));
    const made = best && this.#made.find(({ pool }) => pool.task === best.pool.task);
    if (!best || !made?.fitter || this.#late()) return [];
    const { pool } = best;
    const [{ limit }] = pool.task.rules;
    const useful = usefulExits(best.settings.slice(0, best.boldest + 1), pool.tables.at(-1)!, [limit]);
    const heads = pool.exits.filter(({ head }) => head);
    const kept = new Set(heads.map(({ after }) => after).filter((after) => useful.has(after)));
    if (kept.size === 0 || kept.size === heads.length) return [];
    const chains = await made.fitter.fit(kept);
    const fronts = pool.exits.slice(0, pool.fronts);
    const again = await this.#pool(made.network, pool.task, fronts, chains, made.fitter);
    const ladder = ladderOf(again, this.#risk(again));
    return ladder ? [ladder] : [];
  }

  /** Times the first of the ladders as they are, and returns the fastest. */
  #fastest(ladders: readonly Ladder[]): Ladder | undefined {
    const { engine } = this.setup;
    const inputs = [...this.#split.order, ...this.#split.fit].map(({ input }) => input);
    const measured = ladders.slice(0, FINALISTS).map((ladder) => {
      const { task, exits } = ladder.pool;
      const stopwatch = new Stopwatch(engine, task.programs, task.guards, task.original);
      try {
        const thresholds = ladder.settings[ladder.boldest] ?? exits.map(() => NEVER);
        const { fullMs, policyMs } = stopwatch.time(exitsOf(exits, thresholds), inputs, EFFORT);
        return { ladder, time: policyMs.mean / fullMs.mean };
      } finally {
        stopwatch.release();
      }
    });
    this.#tried = ladders.map((ladder, i) => ({
      ...describe(ladder),
      ...(measured[i] && { measured: measured[i].time }),
    }));
    return measured.sort((a, b) => a.time - b.time).find(({ time }) => time < 1)?.ladder;
  }

  async #certify({ pool, settings, boldest }: Ladder): Promise<Pick<Speedup, 'calibration' | 'files'>> {
    const { backend, opened, read } = this.setup;
    const { network, fronts } = this.#made.find((made) => made.pool.task === pool.task)!;
    const names = new Set(pool.exits.map(({ after }) => after));
    const used = fronts.filter(({ candidate }) => names.has(candidate.spec.name));
    const specs = used.map(({ candidate }): FrontSpec => inFolder(candidate, network));
    const programs = programsOf(
      network.model,
      opened,
      read.typical,
      used.map(({ front }) => front),
    );
    const from = Math.max(0, boldest - BEFORE);
    const careful = settings.slice(0, from).filter((_, i) => i % Math.ceil(from / CAREFUL) === 0);
    const tested = [...careful, ...settings.slice(from, boldest + BEHIND)];
    const choice = { fronts: specs, exits: pool.exits, settings: tested };
    const options = { ...this.#optionsFor(network), choice };
    const calibration = await calibrateItems(backend, programs, network.model.sha256, read.items, options);
    const kept = new Set(calibration.policy.fronts?.map(({ file }) => file));
    const files = new Map([['model.onnx', network.bytes]]);
    for (const [i, { candidate }] of used.entries()) {
      const { file } = specs[i]!;
      if (kept.has(file) && file !== 'model.onnx') files.set(file, candidate.network.bytes);
    }
    return { calibration, files };
  }
}

/** The 8-bit form of a network at its own resolution. */
function specOfWhole({ name, model }: Network): FrontSpec {
  return { name, file: `${name}.onnx`, sha256: model.sha256 };
}

/** The front as it is called in the folder of the ladder, where the network is model.onnx. */
function inFolder({ spec, network }: Candidate, main: Network): FrontSpec {
  return { ...spec, file: network.model.sha256 === main.model.sha256 ? 'model.onnx' : basename(spec.file) };
}

function describe({ pool, risk, mean, p95 }: Ladder): Tried {
  const fronts = pool.exits.slice(0, pool.fronts).map(({ after }) => after);
  return { rungs: [...fronts, pool.name], exits: pool.exits.length - pool.fronts, risk, mean, p95 };
}
