import type { Backend } from '../backends/backend.js';
import type { Program } from '../model/program/program.js';
import { describeBlocks } from '../skip/block-info.js';
import { layersOf, partsOf } from '../skip/compiled-policy.js';
import { guardedAnswers } from '../skip/guards.js';
import type { RunContext } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import { classScoresOf } from '../skip/scores.js';
import { keepRecent } from '../util/maps.js';
import { packageVersion } from '../util/version.js';
import type { Network } from './network.js';
import type { CachedProgram } from './program-cache.js';

/** The RunContext of a session's runs. */
export class Contexts {
  #last: { readonly program: Program; readonly context: RunContext } | undefined;

  /** @param source path that the model was loaded from; null when it was given as bytes */
  constructor(
    private readonly network: Network,
    private readonly source: string | null,
    private readonly backend: Backend,
  ) {}

  /**
   * Of the runs of a program: the same object for the same policy.
   * @param policy the requested one; a session in full depth runs a program without the policy's heads
   */
  of({ program, contexts }: CachedProgram, policy: SkipPolicy): RunContext {
    return contexts.get(policy) ?? keepRecent(contexts, policy, this.describe(program, policy));
  }

  /** Of a program that need not be compiled; the last one is kept. */
  describe(program: Program, policy: SkipPolicy): RunContext {
    const last = this.#last;
    if (last?.program === program && last.context.policy === policy) return last.context;
    const { name, isa, threads } = this.backend;
    const { model, staged } = this.network;
    const context = {
      version: packageVersion(),
      get sha256() {
        return model.sha256;
      },
      source: this.source,
      policy,
      policySha256: partsOf(policy).sha256,
      guards: guardedAnswers(policy.guards ?? [], policy.labels),
      backend: name,
      isa,
      threads,
      precision: program.precision ?? ('float32' as const),
      multiplyAdds: program.cost.multiplyAdds,
      layers: layersOf(program),
      blocks: describeBlocks(program),
      // The program's outputs aren't those of a model with stages behind it.
      classScores: staged ? null : classScoresOf(program),
    };
    this.#last = { program, context };
    return context;
  }
}
