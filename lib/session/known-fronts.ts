/** The fronts that a session was created with. */
import { isDeepStrictEqual } from 'node:util';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import type { Binding } from '../model/read/model.js';
import { type Front, type FrontSpec, withFronts } from '../skip/fronts.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { Sliced } from '../util/slices.js';

/** The fronts of a policy and of its bolder settings, which may use fewer or more, in the order in which all of them ask. */
export function frontsOf({ fronts, settings = [] }: SkipPolicy): FrontSpec[] {
  const all: FrontSpec[] = [];
  for (const list of [fronts, ...settings.map((setting) => setting.fronts)]) {
    let place = 0;
    for (const front of list ?? []) {
      const known = all.findIndex(({ name }) => name === front.name);
      if (known < 0) all.splice(place, 0, front);
      else if (!all[known]!.exits) all[known] = front;
      place = (known < 0 ? place : known) + 1;
    }
  }
  return all;
}

/** Checks that policies of runs have no other fronts than their session, whose files were read when it was created. */
export class KnownFronts {
  readonly #specs: readonly FrontSpec[];
  /** Policies that were checked. */
  readonly #fitting = new WeakSet<SkipPolicy>();

  constructor(own: SkipPolicy) {
    this.#specs = frontsOf(own);
    this.#fitting.add(own);
  }

  /** @throws ResidualSkipError INVALID_POLICY */
  check(policy: SkipPolicy): void {
    const { fronts } = policy;
    if (!fronts || this.#fitting.has(policy)) return;
    const places = fronts.map((front) => this.#specs.findIndex((known) => isSame(front, known)));
    if (places.some((place, i) => place < 0 || place < (places[i - 1] ?? 0))) {
      const message =
        'policy: it has fronts, which are read when a session is created, and this one was created without some of them, or with ' +
        'another order; give the policy to create';
      throw new ResidualSkipError('INVALID_POLICY', message);
    }
    this.#fitting.add(policy);
  }
}

/** Whether it is this front, with the exits inside it or without any. */
function isSame(front: FrontSpec, known: FrontSpec): boolean {
  const { exits: _, ...bare } = known;
  return [known, bare].some((one) => isDeepStrictEqual(one, front));
}

/** What makes the programs of a front. */
interface FrontPrograms {
  compiling(binding: Binding): Sliced<Front>;
}

/** `program`, of the network for this binding, with its fronts. */
export function* joining(
  program: Program,
  fronts: readonly FrontPrograms[],
  binding: Binding,
): Sliced<Program> {
  if (fronts.length === 0) return program;
  const compiled: Front[] = [];
  for (const front of fronts) compiled.push(yield* front.compiling(binding));
  return withFronts(program, compiled);
}
