/** The search for a ladder: measures what it can be made of, chooses on the items that order, and certifies. */
import { basename } from 'node:path';
import type { Backend } from '../backends/backend.js';
import { nativeInfo } from '../backends/native.js';
import { calibrateItems, counting } from '../calibrate/calibrate.js';
import { type CalibrationData, programsOf, shapedPrograms } from '../calibrate/data.js';
import { Fitter, foldsOf } from '../calibrate/fit/folds.js';
import type { CalibrationOptions } from '../calibrate/options.js';
import { exitsOf } from '../calibrate/order/measure.js';
import { usefulExits } from '../calibrate/order/settings.js';
import { type Table, tableOf } from '../calibrate/order/table.js';
import type { Calibration } from '../calibrate/report/result.js';
import type { Programs } from '../calibrate/run/evaluator.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import { type Split, splitItems } from '../calibrate/split.js';
import { type Task, taskOf } from '../calibrate/task.js';
import type { DataModel } from '../classify/data-model.js';
import type { Images } from '../classify/images.js';
import type { Work } from '../classify/work.js';
import { ResidualSkipError } from '../errors.js';
import { inPrecision, type Program } from '../model/program/program.js';
import type { Binding } from '../model/read/model.js';
import { median } from '../numeric/statistics.js';
import { joining, type LoadedFront } from '../session/fronts.js';
import { type AnyExit, modelExits } from '../skip/attach.js';
import { exitInside, type FrontSpec, isInside } from '../skip/fronts.js';
import { NEVER } from '../skip/scores.js';
import { atOnce } from '../util/slices.js';
import {
  certifiable,
  finalists,
  type Goal,
  type Ladder,
  ladderOf,
  laddersOf,
  ranked,
  settingsToTest,
} from './choose.js';
import {
  type Candidate,
  GivenFront,
  inBfloat16,
  int8Network,
  joinable,
  lowerResolutions,
  type Network,
  nameOfInt8,
  specOf,
} from './networks.js';
import type { SpeedupOptions } from './options.js';
import { Pool, timesOf } from './pool.js';
import {
  describe,
  type LadderRung,
  ladderRungs,
  partsOf,
  type TimedLadder,
  type Tried,
  type TriedPart,
} from './tried.js';

/** What a search found. */
export interface Found {
  /** Of the ladder that was chosen; null where none is faster. */
  readonly calibration: Calibration | null;
  /** Files of the ladder's folder, by name. */
  readonly files: ReadonlyMap<string, () => Promise<Uint8Array>>;
  /** What answers in the ladder that was chosen, the network last; empty where none is faster, or one without exits. */
  readonly rungs: readonly LadderRung[];
  /** What ladders were made of, each by itself. */
  readonly parts: readonly TriedPart[];
  /** The fastest first; those that don't pay are last. */
  readonly tried: readonly Tried[];
}

/** Each finalist is timed in several rounds, so that a pause of the machine doesn't decide. */
const [ROUNDS, EFFORT] = [3, { items: 400, milliseconds: 1000 } satisfies Effort];

/** What all steps share. */
export interface Setup {
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
  /** Nothing new is started after this time, by performance.now(). */
  readonly end: number;
}

/** A pool with the networks that it was made from. */
interface Made {
  readonly pool: Pool;
  readonly network: Network;
  readonly fronts: readonly Joined[];
  readonly fitter: Fitter | undefined;
  /** Exits of the network, as those of a front. */
  readonly chains: readonly (readonly AnyExit[])[];
}

/** A front with exits of its own: for each fold of the items those that were fitted without it, and then the policy's. */
interface Joined {
  readonly candidate: Candidate;
  readonly front: LoadedFront;
  readonly chains: readonly (readonly AnyExit[])[];
  readonly fitter: Fitter | undefined;
}

/** How the user's network is prepared and run. */
type Engine = Pick<SpeedupOptions, 'labels' | 'preprocessor' | 'isa' | 'threads'>;

export class Search {
  readonly #split: Split;
  readonly #made: Made[] = [];

  constructor(private readonly setup: Setup) {
    const { float, read } = setup;
    const task = this.#taskOf(setup.programs, float);
    this.#split = splitItems(read.items, task, setup.prepared.fit ? 'order' : 'fit');
  }

  async run(
    {
      front = [],
      int8 = true,
      bfloat16 = true,
      for: goal,
    }: Pick<SpeedupOptions, 'front' | 'int8' | 'bfloat16' | 'for'>,
    engine: Engine,
  ): Promise<Found> {
    const { float, opened, work } = this.setup;
    const taken = new Set(ownNames(float));
    const given: GivenFront[] = [];
    for (const path of front) given.push(await GivenFront.open(path, opened, taken));
    const bytes = int8 ? await this.#int8(given, engine) : undefined;
    const inFloat = [...given.map((one) => one.candidate()), ...lowerResolutions(float)];
    const inBytes = bytes ? [...bytes.given, ...(bytes.own ? lowerResolutions(bytes.own) : [])] : [];
    const whole = bytes?.own
      ? [{ network: bytes.own, spec: specOf(bytes.own.name, bytes.own.name, bytes.own.model) }]
      : [];
    await this.#add(float, [...inFloat, ...inBytes, ...whole]);
    const hasInstructions = engine.isa === undefined && nativeInfo().bfloat16;
    if (bfloat16 && hasInstructions && !this.#late())
      await this.#add(inBfloat16(float), [...inFloat, ...inBytes]);
    if (bytes?.own && !this.#late()) await this.#add(bytes.own, inBytes);
    const shortest: Goal = goal === 'p95' ? 'p95' : 'mean';
    const parts = this.#made.flatMap(({ pool }) => partsOf(pool, this.#risk(pool)));
    const ladders = this.#made.flatMap(({ pool }) => laddersOf(pool, this.#risk(pool)));
    ladders.push(...(await this.#refitted(ranked(ladders.filter(paying), shortest))));
    const measured = this.#timed(ranked(ladders.filter(paying), shortest), shortest);
    const ladder = measured.find(({ mean }) => mean < 1)?.ladder;
    if (!ladder) work.note('no ladder is faster than the network within the limit');
    const found = ladder ? await this.#certify(ladder) : NOTHING;
    const fastest = ladder && { ladder, certified: found.calibration !== null };
    return { ...found, parts, tried: describe(ladders, measured, fastest) };
  }

  #late(): boolean {
    return performance.now() > this.setup.end;
  }

  #taskOf(programs: Programs, network: Network): Task {
    return taskOf(this.setup.backend, programs, network.model.sha256, this.#optionsFor(network));
  }

  /** With the float network as the original of another one. */
  #optionsFor({ precision }: Network): CalibrationOptions {
    const { prepared, programs, float } = this.setup;
    const original = precision === 'float' ? undefined : { program: programs, sha256: float.model.sha256 };
    return { ...prepared, original };
  }

  #risk(pool: Pool): number {
    return certifiable(pool, this.#split.certify.length);
  }

  /** 8-bit forms of the network and of the given fronts. */
  async #int8(given: readonly GivenFront[], { labels, preprocessor, isa, threads }: Engine) {
    const { float, opened, work } = this.setup;
    if (!opened.images) return undefined;
    const options = { labels, preprocessor, isa, threads };
    const own = await int8Network(float.name, opened.file, this.#choosing(), options, work);
    const fronts: Candidate[] = [];
    for (const front of given) {
      if (this.#late()) break;
      const network = await int8Network(
        front.network.name,
        front.file,
        this.#choosing(),
        { isa, threads },
        work,
      );
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

  /** The network, behind its fronts, which run in its precision. */
  #programsOf({ model, precision }: Network, fronts: readonly LoadedFront[] = []): Programs {
    const { opened, read } = this.setup;
    const programs = programsOf(model, opened, read.typical, fronts);
    return precision === 'bfloat16' ? programs.map((program) => inPrecision(program, precision)) : programs;
  }

  /** Measures a network with all candidates that fit it, and with exits of its own. */
  async #add(network: Network, candidates: readonly Candidate[]): Promise<void> {
    const { work } = this.setup;
    const plain = this.#programsOf(network);
    const workOf = (front: LoadedFront) =>
      atOnce(joining(plain.main, [front], bindingOf(plain.main))).ownExits!.list[0]!.cost.multiplyAdds;
    const fitted = await joinable(candidates, network, workOf, work);
    const fronts: Joined[] = [];
    for (const each of fitted) {
      // A network that a rung runs again at another size, or in 8 bits, gains little by exits there and here.
      const isOwn = ownNames(this.setup.float).includes(each.candidate.network.name);
      const fitter = isOwn || this.#late() ? undefined : this.#fitterOf(each.front);
      fronts.push({ ...each, fitter, chains: (await fitter?.fit()) ?? [[]] });
    }
    const task = this.#taskOf(plain, network);
    const own = modelExits(plain.main.ownExits).map(({ after }): AnyExit => ({ after }));
    const fitter = own.length > 0 || this.#late() ? undefined : new Fitter(task, this.#split);
    const chains = fitter ? await fitter.fit() : [own];
    this.#made.push({ pool: await this.#pool(network, fronts, chains), network, fronts, fitter, chains });
  }

  /** Fits exits inside a front, to its own answers. */
  #fitterOf(front: LoadedFront): Fitter {
    const { float, opened, read } = this.setup;
    const programs = shapedPrograms(float.model, opened, read.typical, function* (binding) {
      return (yield* front.compiling(binding)).program;
    });
    const { options, ...task } = this.#taskOf(programs, float);
    return new Fitter({ ...task, options: { ...options, labels: undefined } }, this.#split);
  }

  /** @param chains of the network's exits, for each fold and then the policy's */
  async #pool(
    network: Network,
    fronts: readonly Joined[],
    chains: readonly (readonly AnyExit[])[],
  ): Promise<Pool> {
    const { prepared, engine } = this.setup;
    const folds = prepared.fit ? [this.#split.order] : foldsOf(this.#split);
    const tables: Table[] = [];
    let last: Parameters<typeof timesOf>[1] | undefined;
    let networks: (readonly AnyExit[])[] = [];
    for (const [fold, items] of [...folds, []].entries()) {
      const at = (list: readonly (readonly AnyExit[])[]) => list[Math.min(fold, list.length - 1)]!;
      const joined = fronts.map(({ front, chains: own }) => front.withExits(at(own)));
      const programs = this.#programsOf(network, joined);
      const task = this.#taskOf(programs, network);
      networks = [
        ...fronts.map(({ candidate, chains: own }) => exitsOfFront(candidate.spec.name, at(own))),
        [...at(chains)],
      ];
      if (fold < folds.length) tables.push(await tableOf(task, networks.flat(), items));
      last = task;
    }
    const inputs = folds.at(-1)!.map(({ input }) => input);
    const { times, whole } = timesOf(engine, last!, networks, inputs);
    return new Pool(network.name, last!, networks.flat(), tables, times, fronts.length, whole);
  }

  /** The fastest ladder with exits, with only those of its exits that pay: an item passes through the others, too. */
  async #refitted(all: readonly Ladder[]): Promise<Ladder[]> {
    const best = all.find(({ pool, boldest }) => boldest >= 0 && pool.exits.length > pool.own);
    if (!best || this.#late()) return [];
    const { pool } = best;
    const made = this.#madeFor(best);
    const [{ limit }] = pool.task.rules;
    const useful = usefulExits(best.settings.slice(0, best.boldest + 1), pool.tables.at(-1)!, [limit]);
    let changes = false;
    const again = async (fitter: Fitter | undefined, exits: readonly AnyExit[], front?: string) => {
      const kept = exits.filter(({ after }) =>
        useful.has(front === undefined ? after : exitInside(front, after)),
      );
      if (!fitter || kept.length === exits.length) return undefined;
      changes = true;
      return kept.length === 0 ? [[]] : fitter.fit(new Set(kept.map(({ after }) => after)));
    };
    const fronts: Joined[] = [];
    for (const front of usedBy(pool, made.fronts)) {
      const { name } = front.candidate.spec;
      const used = pool.exits.some(({ after }) => isInside(name, after));
      const chains = used ? await again(front.fitter, front.chains.at(-1)!, name) : [[]];
      fronts.push({ ...front, chains: chains ?? front.chains });
    }
    const own = pool.exits.filter((_, e) => pool.times[e]!.network === pool.own);
    const chains = own.length === 0 ? [[]] : ((await again(made.fitter, own)) ?? made.chains);
    if (!changes) return [];
    const refitted = await this.#pool(made.network, fronts, chains);
    this.#made.push({ ...made, pool: refitted, fronts, chains });
    return [ladderOf(refitted, this.#risk(refitted))];
  }

  #madeFor({ pool }: Ladder): Made {
    return this.#made.find((made) => made.pool.task === pool.task)!;
  }

  /** The finalists, timed as they are; the fastest first. */
  #timed(ladders: readonly Ladder[], goal: Goal): TimedLadder[] {
    const { engine } = this.setup;
    const inputs = [...this.#split.order, ...this.#split.fit].map(({ input }) => input);
    const measured = finalists(ladders).map((ladder) => {
      const { task, exits } = ladder.pool;
      const stopwatch = new Stopwatch(engine, task.programs, task.guards, task.original);
      try {
        const thresholds = ladder.settings[ladder.boldest] ?? exits.map(() => NEVER);
        const rounds = Array.from({ length: ROUNDS }, () =>
          stopwatch.time(exitsOf(exits, thresholds), inputs, EFFORT),
        );
        const share = (of: Goal) => median(rounds.map(({ fullMs, policyMs }) => policyMs[of]! / fullMs[of]!));
        return { ladder, mean: share('mean'), time: share(goal) };
      } finally {
        stopwatch.release();
      }
    });
    return measured.sort((a, b) => a.time - b.time);
  }

  async #certify(ladder: Ladder): Promise<Pick<Found, 'calibration' | 'files' | 'rungs'>> {
    const { backend, read, work } = this.setup;
    const { pool } = ladder;
    const { network, fronts } = this.#madeFor(ladder);
    const used = usedBy(pool, fronts).map(({ candidate, front, chains }) => ({
      candidate,
      front: front.withExits(
        pool.exits.some(({ after }) => isInside(candidate.spec.name, after)) ? chains.at(-1)! : [],
      ),
    }));
    const specs = used.map(({ candidate, front }) => inFolder(candidate, front.spec, network));
    const joined = used.map(({ front }) => front);
    const programs = this.#programsOf(network, joined);
    const settings = settingsToTest(ladder);
    const choice = { fronts: specs, exits: pool.exits, settings };
    const options = { ...this.#optionsFor(network), choice };
    const { sha256 } = network.model;
    const certifying = calibrateItems(backend, programs, sha256, read.items, options, counting(work));
    const calibration = await certifying.catch((error: unknown) => {
      // The 8-bit network's own answers already differ too often on the items that certify.
      if (!(error instanceof ResidualSkipError) || error.code !== 'INVALID_DATA') throw error;
      work.note(`the fastest ladder can't be certified: ${error.message.replace('original: ', '')}`);
      return null;
    });
    if (!calibration) return NOTHING;
    if (calibration.chosen < 0) {
      work.note('the fastest ladder keeps the limit on the items that order, but not on those that certify');
      return NOTHING;
    }
    const kept = new Set(calibration.policy.fronts?.map(({ file }) => file));
    const files = new Map([['model.onnx', network.bytes]]);
    for (const [i, { candidate }] of used.entries()) {
      const { file } = specs[i]!;
      if (kept.has(file) && file !== 'model.onnx') files.set(file, candidate.network.bytes);
    }
    // Without any exit, an 8-bit network is tested first.
    const setting = settings[calibration.chosen - (calibration.settings.length - settings.length)];
    return { calibration, files, rungs: setting ? ladderRungs(pool, setting, calibration.rungs) : [] };
  }
}

const bindingOf = ({ inputs, values }: Program): Binding =>
  new Map(inputs.map(({ name, value }) => [name, { shape: values[value]!.shape }]));

const NOTHING = { calibration: null, files: new Map<string, never>(), rungs: [] };
const paying = ({ state }: Ladder) => state === 'pays';

/** Names of the user's network in float and in 8 bits. */
const ownNames = ({ name }: Network) => [name, nameOfInt8(name)];

/** The exits of a front, as the network names them. */
function exitsOfFront(front: string, inside: readonly AnyExit[]): AnyExit[] {
  return [...inside.map(({ after }) => ({ after: exitInside(front, after) })), { after: front }];
}

/** The fronts of a pool, in the order in which they are asked. */
function usedBy({ exits }: Pool, fronts: readonly Joined[]): Joined[] {
  return exits.flatMap(({ after }) => fronts.filter(({ candidate }) => candidate.spec.name === after));
}

/** The front as it is called in the folder of the ladder, where the network is model.onnx. */
function inFolder({ network }: Candidate, spec: FrontSpec, main: Network): FrontSpec {
  return { ...spec, file: network.model.sha256 === main.model.sha256 ? 'model.onnx' : basename(spec.file) };
}
