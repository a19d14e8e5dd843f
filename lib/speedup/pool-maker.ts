/** Makes what ladders are chosen from: networks with all fronts before them and all exits in them, measured on the items that order. */
import type { Backend } from '../backends/backend.js';
import type { CalibrationData } from '../calibrate/data.js';
import { Fitter, foldsOf } from '../calibrate/fit/folds.js';
import type { CalibrationOptions } from '../calibrate/options.js';
import { usefulExits } from '../calibrate/order/settings.js';
import { type Table, tableOf } from '../calibrate/order/table.js';
import { programsOf, shapedPrograms } from '../calibrate/prepared.js';
import type { Programs } from '../calibrate/run/evaluator.js';
import { type Split, splitItems } from '../calibrate/split.js';
import { type Task, taskOf } from '../calibrate/task.js';
import type { DataModel } from '../classify/data-model.js';
import type { Item } from '../classify/images.js';
import type { Work } from '../classify/work.js';
import type { RawImage } from '../data/image.js';
import { inPrecision, type Program } from '../model/program/program.js';
import type { Binding } from '../model/read/model.js';
import type { LoadedFront } from '../session/fronts.js';
import { joining } from '../session/known-fronts.js';
import { type AnyExit, modelExits } from '../skip/exits.js';
import { exitInside, isInside } from '../skip/fronts.js';
import type { Tensor } from '../tensor/tensor.js';
import { atOnce } from '../util/slices.js';
import type { Ladder } from './choose.js';
import {
  type Candidate,
  type GivenFront,
  int8Network,
  joinable,
  type Network,
  ownNames,
  reducedPrecision,
} from './networks.js';
import type { SpeedupOptions } from './options.js';
import { Pool } from './pool.js';
import { timesOf } from './times.js';

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
  readonly given: readonly GivenFront[];
  /** Whether exits are fitted. */
  readonly exits: boolean;
  /** Nothing new is started after this time, by performance.now(). */
  readonly end: number;
}

/** A pool with the networks that it was made from. */
export interface Made extends Fitted {
  readonly pool: Pool;
  readonly network: Network;
  readonly fronts: readonly Joined[];
}

/** Exits of a network: for each fold of the items those that were fitted without it, and then the policy's. */
interface Fitted {
  readonly fitter: Fitter | undefined;
  readonly chains: readonly (readonly AnyExit[])[];
}

/** A front with exits of its own. */
export interface Joined extends Fitted {
  readonly candidate: Candidate;
  readonly front: LoadedFront;
}

const NO_EXITS: Fitted = { fitter: undefined, chains: [[]] };

/** How the user's network is prepared and run. */
export type Engine = Pick<SpeedupOptions, 'labels' | 'preprocessor' | 'isa' | 'threads'>;

export class PoolMaker {
  readonly split: Split;
  readonly made: Made[] = [];
  /** By the name of the network: a front has the same exits before every network. */
  readonly #fitted = new Map<string, Fitted>();

  constructor(private readonly setup: Setup) {
    const { float, read } = setup;
    const task = this.#taskOf(setup.programs, float);
    this.split = splitItems(read.items, task, setup.prepared.fit ? 'order' : 'fit');
  }

  /** Whether nothing new may be started. */
  isLate(): boolean {
    return performance.now() > this.setup.end;
  }

  /** Whether exits may be fitted now. */
  #fits(): boolean {
    return this.setup.exits && !this.isLate();
  }

  /** @param name of what it is about, in its progress */
  #taskOf(programs: Programs, network: Network, name = network.name): Task {
    const { backend, work } = this.setup;
    const onProgress = (done: number, total: number) => work.report('calibrating', done, total, name);
    return taskOf(backend, programs, network.model.sha256, { ...this.optionsFor(network), onProgress });
  }

  /** With the float network as the original of another one. */
  optionsFor({ precision }: Network): CalibrationOptions {
    const { prepared, programs, float } = this.setup;
    const original = precision === 'float' ? undefined : { program: programs, sha256: float.model.sha256 };
    return { ...prepared, original };
  }

  /** 8-bit forms of the network and of the given fronts. */
  async int8(given: readonly GivenFront[], { labels, preprocessor, isa, threads }: Engine) {
    const { float, opened, work } = this.setup;
    const choosing = (reader: DataModel) => this.#choosing(reader);
    const options = { labels, preprocessor, isa, threads };
    const own = await int8Network(float.name, opened.file, choosing, options, work);
    const fronts: Candidate[] = [];
    for (const front of given) {
      if (this.isLate()) break;
      const network = await int8Network(front.network.name, front.file, choosing, { isa, threads }, work);
      if (network) fronts.push(front.candidate(network));
    }
    return { own, given: fronts };
  }

  /** Items that ranges of activations are chosen by: never those that certify. Images are prepared for the network that reads them. */
  async #choosing(reader: DataModel): Promise<Iterable<Item<Tensor>> | AsyncIterable<Item<Tensor>>> {
    const { byHash, typical } = this.setup.read;
    const chosen = [...this.split.fit, ...this.split.order];
    if (!reader.images) return chosen.map(({ sha256 }) => byHash.get(sha256)!);
    async function* images() {
      for (const { sha256, input } of chosen) {
        const item = byHash.get(sha256);
        yield (item?.load ? await item.load() : { ...typical, data: input }) as RawImage;
      }
    }
    return (await reader.open(images(), {}, 'none')).list;
  }

  /** The network, behind its fronts, which run in its precision. */
  programsOf(network: Network, fronts: readonly LoadedFront[] = []): Programs {
    const { opened, read } = this.setup;
    const precision = reducedPrecision(network);
    return programsOf(network.model, opened, read.typical, fronts).map((program) =>
      inPrecision(program, precision),
    );
  }

  /** Measures a network with all candidates that fit it, and with exits of its own. */
  async add(network: Network, candidates: readonly Candidate[]): Promise<void> {
    const { work } = this.setup;
    const plain = this.programsOf(network);
    const workOf = (front: LoadedFront) =>
      atOnce(joining(plain.main, [front], bindingOf(plain.main))).ownExits!.list[0]!.cost.multiplyAdds;
    const fitted = await joinable(candidates, network, workOf, work);
    const fronts: Joined[] = [];
    for (const each of fitted) {
      const { network: front, lower } = each.candidate;
      // At another size, a network that runs again gains little by exits there and here.
      const exits = lower ? NO_EXITS : await this.#fittedOnce(front.name, () => this.#fitterOf(each.front));
      fronts.push({ ...each, ...exits });
    }
    const task = this.#taskOf(plain, network);
    const own = modelExits(plain.main.ownExits).map(({ after }): AnyExit => ({ after }));
    // What bfloat16 rounds off is too little for heads of its own.
    const name = reducedPrecision(network) ? this.setup.float.name : network.name;
    const exits =
      own.length > 0
        ? { fitter: undefined, chains: [own] }
        : await this.#fittedOnce(name, () => new Fitter(task, this.split));
    this.made.push({ pool: await this.#pool(network, fronts, exits.chains), network, fronts, ...exits });
  }

  async #fittedOnce(network: string, fitterOf: () => Fitter): Promise<Fitted> {
    const known = this.#fitted.get(network);
    if (known || !this.#fits()) return known ?? NO_EXITS;
    const fitter = fitterOf();
    const fitted = { fitter, chains: await fitter.fitAlone() };
    this.#fitted.set(network, fitted);
    return fitted;
  }

  /** Fits exits inside a front, to its own answers. */
  #fitterOf(front: LoadedFront): Fitter {
    const { float, opened, read } = this.setup;
    const programs = shapedPrograms(float.model, opened, read.typical, function* (binding) {
      return (yield* front.compiling(binding)).program;
    });
    const { options, ...task } = this.#taskOf(programs, float, front.spec.name);
    return new Fitter({ ...task, options: { ...options, labels: undefined } }, this.split);
  }

  /** @param chains of the network's exits, for each fold and then the policy's */
  async #pool(
    network: Network,
    fronts: readonly Joined[],
    chains: readonly (readonly AnyExit[])[],
  ): Promise<Pool> {
    const { prepared, engine } = this.setup;
    const folds = prepared.fit ? [this.split.order] : foldsOf(this.split);
    const tables: Table[] = [];
    let last: Parameters<typeof timesOf>[1] | undefined;
    let networks: (readonly AnyExit[])[] = [];
    for (const [fold, items] of [...folds, []].entries()) {
      const at = (list: readonly (readonly AnyExit[])[]) => list[Math.min(fold, list.length - 1)]!;
      const joined = fronts.map(({ front, chains: own }) => front.withExits(at(own)));
      const programs = this.programsOf(network, joined);
      const task = this.#taskOf(programs, network);
      networks = [
        ...fronts.map(({ candidate, chains: own }) => exitsOfFront(candidate.spec.name, at(own))),
        [...at(chains)],
      ];
      task.progress.begin(items.length * (task.original ? 2 : 1));
      if (fold < folds.length) tables.push(await tableOf(task, networks.flat(), items));
      last = task;
    }
    const inputs = folds.at(-1)!.map(({ input }) => input);
    const { times, whole } = timesOf(engine, last!, networks, inputs);
    const forms = fronts.filter(
      ({ candidate: { network: front, lower } }) => !lower && ownNames(this.setup.float).includes(front.name),
    );
    const names = new Set(forms.map(({ candidate }) => candidate.spec.name));
    return new Pool(network.name, last!, networks.flat(), tables, times, fronts.length, whole, names);
  }

  /** The pool of the fastest ladder with exits, with only those of its exits that pay: an item passes through the others, too. */
  async refitted(ladders: readonly Ladder[]): Promise<Pool | undefined> {
    const best = ladders.find(({ pool, boldest }) => boldest >= 0 && pool.exits.length > pool.own);
    if (!best || this.isLate()) return undefined;
    const { pool } = best;
    const made = this.madeFor(best);
    const [{ limit }] = pool.task.rules;
    const useful = usefulExits(best.settings.slice(0, best.boldest + 1), pool.tables.at(-1)!, [limit]);
    let changes = false;
    const again = async (fitter: Fitter | undefined, exits: readonly AnyExit[], front?: string) => {
      const kept = exits.filter(({ after }) =>
        useful.has(front === undefined ? after : exitInside(front, after)),
      );
      if (!fitter || kept.length === exits.length) return undefined;
      changes = true;
      return kept.length === 0 ? [[]] : fitter.fitAlone(new Set(kept.map(({ after }) => after)));
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
    if (!changes) return undefined;
    const refitted = await this.#pool(made.network, fronts, chains);
    this.made.push({ ...made, pool: refitted, fronts, chains });
    return refitted;
  }

  madeFor({ pool }: Ladder): Made {
    return this.made.find((made) => made.pool.task === pool.task)!;
  }
}

const bindingOf = ({ inputs, values }: Program): Binding =>
  new Map(inputs.map(({ name, value }) => [name, { shape: values[value]!.shape }]));

/** The exits of a front, as the network names them. */
function exitsOfFront(front: string, inside: readonly AnyExit[]): AnyExit[] {
  return [...inside.map(({ after }) => ({ after: exitInside(front, after) })), { after: front }];
}

/** The fronts of a pool, in the order in which they are asked. */
export function usedBy({ exits }: Pool, fronts: readonly Joined[]): Joined[] {
  return exits.flatMap(({ after }) => fronts.filter(({ candidate }) => candidate.spec.name === after));
}
