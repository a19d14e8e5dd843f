/** The search for a ladder: measures what it can be made of, chooses on the items that order, and certifies. */
import { basename } from 'node:path';
import { nativeInfo } from '../backends/addon.js';
import { calibrateItems, counting } from '../calibrate/calibrate.js';
import { exitsOf, type Thresholds } from '../calibrate/order/measure.js';
import type { Calibration } from '../calibrate/report/result.js';
import { type Effort, Stopwatch } from '../calibrate/run/latency.js';
import { ResidualSkipError } from '../errors.js';
import { isReduced } from '../model/program/program.js';
import { type FrontSpec, isInside } from '../skip/fronts.js';
import { NEVER } from '../skip/scores.js';
import { inTurns } from '../util/slices.js';
import {
  contenders,
  expectedTime,
  finalists,
  type Goal,
  isFaster,
  type Ladder,
  ladderOf,
  laddersOf,
  type Proves,
  provable,
  ranked,
  settingsToTest,
  type TimedLadder,
} from './choose.js';
import { type Candidate, inBfloat16, lowerResolutions, type Network, sameNetwork } from './networks.js';
import type { SpeedupOptions } from './options.js';
import type { Pool } from './pool.js';
import { type Engine, type Joined, PoolMaker, type Setup, usedBy } from './pool-maker.js';
import { describe, type LadderRung, ladderRungs, partsOf, type Tried, type TriedPart } from './tried.js';

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

/** Of timing a finalist, once in each pass over all of them; the least share counts, as in times.ts. */
const EFFORT: Effort = { items: 400, milliseconds: 700, rounds: 2 };
const PASSES = 2;

export class Search {
  readonly #maker: PoolMaker;

  constructor(private readonly setup: Setup) {
    this.#maker = new PoolMaker(setup);
  }

  async run(
    { int8 = true, bfloat16 = true, for: goal }: Pick<SpeedupOptions, 'int8' | 'bfloat16' | 'for'>,
    engine: Engine,
  ): Promise<Found> {
    const { float, given, work } = this.setup;
    const maker = this.#maker;
    const bytes = int8 ? await maker.int8(given, engine) : undefined;
    const inFloat = [...given.map((one) => one.candidate()), ...lowerResolutions(float)];
    const inBytes = bytes ? [...bytes.given, ...(bytes.own ? lowerResolutions(bytes.own) : [])] : [];
    const whole = bytes?.own ? [sameNetwork(bytes.own)] : [];
    await maker.add(float, [...inFloat, ...inBytes, ...whole]);
    const native = nativeInfo();
    const fastest = (engine.isa ?? native.best) === native.best ? native.fastestPrecision : undefined;
    if (bfloat16 && isReduced(fastest) && !maker.isLate())
      await maker.add(inBfloat16(float, fastest), [...inFloat, ...inBytes, ...whole]);
    if (bytes?.own && !maker.isLate()) await maker.add(bytes.own, inBytes);
    const shortest: Goal = goal === 'p95' ? 'p95' : 'mean';
    const pools = maker.made.map(({ pool }) => pool);
    const parts = pools.flatMap((pool) => partsOf(pool, this.#proves(pool)));
    const isLate = () => {
      work.check();
      return maker.isLate();
    };
    const ladders: Ladder[] = [];
    for (const pool of pools)
      ladders.push(...(await inTurns(laddersOf(pool, this.#proves(pool), shortest, isLate))));
    const refitted = await maker.refitted(ranked(ladders.filter(paying), shortest));
    if (refitted) ladders.push(ladderOf(refitted, this.#proves(refitted)));
    const measured = this.#timed(ranked(ladders.filter(paying), shortest), shortest);
    const chosen = contenders(measured.filter(isFaster), ({ pool }, share) => this.#proves(pool, share));
    if (chosen.length === 0) work.note('no ladder is faster than the network within the limit');
    const found = await this.#certify(chosen.map(({ ladder }) => ladder));
    const passed = found.filter(({ calibration }) => calibration);
    const [best = NOTHING] = passed.sort((a, b) => timeOf(a, shortest) - timeOf(b, shortest));
    const outcomeOf = (one: Certified) =>
      one === best ? 'chosen' : one.calibration ? 'certified' : 'refuted';
    const tested = new Map(found.map((one) => [one.ladder, outcomeOf(one)] as const));
    const { calibration, files, rungs } = best;
    return { calibration, files, rungs, parts, tried: describe(ladders, measured, tested) };
  }

  #proves(pool: Pool, ladders = 1): Proves {
    return provable(pool, this.#maker.split.certify.length, ladders);
  }

  /** The finalists, timed as they are; the fastest first. */
  #timed(ladders: readonly Ladder[], goal: Goal): TimedLadder[] {
    const some = finalists(ladders);
    const passes = Array.from({ length: PASSES }, () => some.map((ladder) => this.#sharesOf(ladder)));
    const measured = some.map((ladder, i) => {
      const least = (of: Goal) => Math.min(...passes.map((shares) => shares[i]![of]));
      return { ladder, mean: least('mean'), time: expectedTime(ladder, least(goal)) };
    });
    return measured.sort((a, b) => a.time - b.time);
  }

  /** Its times, as fractions of the full network's. */
  #sharesOf({ pool: { task, exits }, settings, boldest }: Ladder): Readonly<Record<Goal, number>> {
    const { order, fit } = this.#maker.split;
    const stopwatch = new Stopwatch(this.setup.engine, task.programs, task.guards, task.original);
    try {
      const thresholds = settings[boldest] ?? exits.map(() => NEVER);
      const inputs = [...order, ...fit].map(({ input }) => input);
      const { fullMs, policyMs } = stopwatch.time(exitsOf(exits, thresholds), inputs, EFFORT);
      return { mean: policyMs.mean / fullMs.mean, p95: policyMs.p95! / fullMs.p95! };
    } finally {
      stopwatch.release();
    }
  }

  /** Each at an equal share of the error: the items that certify are read by one calibration. */
  async #certify(ladders: readonly Ladder[]): Promise<Certified[]> {
    const all = ladders.map((ladder) => this.#toCertify(ladder, ladders.length));
    const asked = all.map(({ network, specs, settings }) => [
      network.model.sha256,
      network.precision,
      specs,
      settings,
    ]);
    const count = counting(this.setup.work);
    let uses: Promise<number | undefined> | undefined;
    const counted: typeof count = (calibration, certifiedOn) => {
      uses ??= count(all.length > 1 ? { calibration, ladders: asked } : calibration, certifiedOn);
      return uses;
    };
    const certified: Certified[] = [];
    for (const one of all) certified.push(await this.#certifyOne(one, counted));
    return certified;
  }

  #toCertify(ladder: Ladder, ladders: number): ToCertify {
    const { pool } = ladder;
    const { network, fronts } = this.#maker.madeFor(ladder);
    const used = usedBy(pool, fronts).map(({ candidate, front, chains }) => ({
      candidate,
      front: front.withExits(
        pool.exits.some(({ after }) => isInside(candidate.spec.name, after)) ? chains.at(-1)! : [],
      ),
    }));
    const specs = used.map(({ candidate, front }) => inFolder(candidate, front.spec, network));
    return { ladder, ladders, network, used, specs, settings: settingsToTest(ladder) };
  }

  async #certifyOne(
    { ladder, ladders, network, used, specs, settings }: ToCertify,
    count: ReturnType<typeof counting>,
  ): Promise<Certified> {
    const { backend, read, work } = this.setup;
    const { pool } = ladder;
    const joined = used.map(({ front }) => front);
    const programs = this.#maker.programsOf(network, joined);
    const choice = { fronts: specs, exits: pool.exits, settings, ladders };
    const options = { ...this.#maker.optionsFor(network), choice };
    const { sha256 } = network.model;
    const name = [...joined.map(({ spec }) => spec.name), pool.name].join(' > ');
    const certifying = calibrateItems(backend, programs, sha256, read.items, options, count);
    const calibration = await certifying.catch((error: unknown) => {
      // The 8-bit network's own answers already differ too often on the items that certify.
      if (!(error instanceof ResidualSkipError) || error.code !== 'INVALID_DATA') throw error;
      work.note(`${name} can't be certified: ${error.message.replace('original: ', '')}`);
      return null;
    });
    if (!calibration) return { ...NOTHING, ladder };
    if (calibration.chosen < 0) {
      work.note(`${name} keeps the limit on the items that order, but not on those that certify`);
      return { ...NOTHING, ladder };
    }
    const kept = new Set(calibration.policy.fronts?.map(({ file }) => file));
    const files = new Map([['model.onnx', network.bytes], ...(network.external ?? [])]);
    for (const [i, { candidate }] of used.entries()) {
      const { file } = specs[i]!;
      if (!kept.has(file) || file === 'model.onnx') continue;
      files.set(file, candidate.network.bytes);
      for (const [path, bytes] of candidate.network.external ?? []) files.set(path, bytes);
    }
    // Without any exit, an 8-bit network is tested first.
    const setting = settings[calibration.chosen - (calibration.settings.length - settings.length)];
    return {
      ladder,
      calibration,
      files,
      rungs: setting ? ladderRungs(pool, setting, calibration.rungs) : [],
    };
  }
}

const NOTHING = { calibration: null, files: new Map<string, never>(), rungs: [] };

/** A ladder, the number of those that share the error, and what makes its programs. */
interface ToCertify {
  readonly ladder: Ladder;
  readonly ladders: number;
  readonly network: Network;
  readonly used: readonly Pick<Joined, 'candidate' | 'front'>[];
  readonly specs: readonly FrontSpec[];
  readonly settings: readonly Thresholds[];
}

/** What the items that certify say of a ladder. */
interface Certified extends Pick<Found, 'calibration' | 'files' | 'rungs'> {
  readonly ladder: Ladder;
}

/** Of a ladder that passed, measured on the items that certify. */
function timeOf({ calibration }: Certified, goal: Goal): number {
  const { fullMs, policyMs } = calibration!.policy.expected!.latency!;
  return policyMs[goal]! / fullMs[goal]!;
}

const paying = ({ state }: Ladder) => state === 'pays';

/** The front as it is called in the folder of the ladder, where the network is model.onnx. */
function inFolder({ network }: Candidate, spec: FrontSpec, main: Network): FrontSpec {
  return { ...spec, file: network.model.sha256 === main.model.sha256 ? 'model.onnx' : basename(spec.file) };
}
