import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import type { Model } from '../model/read/model.js';
import { describeBlocks } from '../skip/block-info.js';
import { layersOf, partsOf } from '../skip/compiled-policy.js';
import { guardedAnswers } from '../skip/guards.js';
import type { RunContext } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import { classScoresOf } from '../skip/scores.js';
import { packageVersion } from '../util/version.js';

/** Creates the RunContext of a session's runs, once for each policy and program. */
export class Contexts {
  readonly #known = new WeakMap<Program, WeakMap<SkipPolicy, RunContext>>();

  /** @param source path that the model was loaded from; null when it was given as bytes */
  constructor(
    private readonly model: Model,
    private readonly source: string | null,
    private readonly backend: Backend,
  ) {}

  /** @param policy the requested one; a session in full depth runs a program without the policy's heads */
  of(program: Program, policy: SkipPolicy): RunContext {
    const known = this.#known.get(program)?.get(policy);
    if (known) return known;
    const { name, isa, threads } = this.backend;
    const made: RunContext = {
      version: packageVersion(),
      sha256: this.model.sha256,
      source: this.source,
      policy,
      policySha256: partsOf(policy).sha256,
      guards: guardedAnswers(policy.guards ?? [], policy.labels),
      backend: name,
      isa,
      threads,
      multiplyAdds: program.cost.multiplyAdds,
      layers: layersOf(program),
      blocks: describeBlocks(program),
      classScores: classScoresOf(program),
    };
    const ofProgram = this.#known.get(program) ?? new WeakMap<SkipPolicy, RunContext>();
    this.#known.set(program, ofProgram.set(policy, made));
    return made;
  }
}
