/** The policy of a certified setting. */
import type { Block } from '../model/program/program.js';
import type { AnyExit } from '../skip/exits.js';
import { type FrontSpec, isInside } from '../skip/fronts.js';
import { encodeExits } from '../skip/head-codec.js';
import { sealed } from '../skip/load-policy.js';
import type { SkipPolicy } from '../skip/policy.js';
import type { Expected, Latency, Promised } from '../skip/promise.js';
import type { Certificate } from './certify/certify.js';
import type { Rule } from './certify/groups.js';
import { latencyReduction } from './run/latency.js';
import type { Effect, Setting } from './strategy.js';
import type { Task } from './task.js';

/** A setting with its effect on the items that certify, and its times. */
export interface MeasuredSetting {
  readonly setting: Setting;
  readonly effect: Effect;
  readonly latency: Latency;
}

/** @param chosen undefined where nothing was certified: the policy skips nothing */
export function policyOf(
  { programs: { main: program }, sha256, options }: Task,
  chosen: MeasuredSetting | undefined,
  promise: Promised,
): SkipPolicy {
  const { original, guards, labels, choice, preprocessing } = options;
  const { exits, omitted = new Set<number>() } = chosen?.setting ?? {};
  const fronts = choice?.fronts.flatMap((front) => inUse(front, exits ?? [])) ?? [];
  return sealed({
    version: 1,
    model: { sha256 },
    ...(original && { reference: { sha256: original.sha256 } }),
    ...(program.precision && { precision: program.precision }),
    ...(preprocessing && { preprocessing }),
    blocks: skipping(program.blocks, omitted),
    // Where nothing is certified, gates of the model must not decide either.
    ...(!chosen && { default: 'run' }),
    ...(fronts.length > 0 && { fronts }),
    // Without this, a policy would keep the model's own exits, which nothing has certified.
    ...((exits || program.ownExits) && { heads: encodeExits(exits ?? []) }),
    ...(guards && { guards: [...guards] }),
    ...(labels && { labels: [...labels] }),
    promise,
    expected: expectedOf(chosen),
  });
}

/** The front as these exits need it: with exits of its own only if one of them is used. */
function inUse({ exits: inside, ...front }: FrontSpec, exits: readonly AnyExit[]): FrontSpec[] {
  if (exits.some(({ after }) => isInside(front.name, after))) return [{ ...front, exits: inside }];
  return exits.some(({ after }) => after === front.name) ? [front] : [];
}

function skipping(blocks: readonly Block[], omitted: ReadonlySet<number>): SkipPolicy['blocks'] {
  const indices = [...omitted].sort((a, b) => a - b);
  return Object.fromEntries(indices.map((i) => [blocks[i]!.name, 'skip']));
}

/** What a policy states that it saves: the means of its setting, and its times. */
function expectedOf(chosen: MeasuredSetting | undefined): Expected {
  if (!chosen) return { multiplyAddsSkipped: 0, blocksSkipped: 0, latencyReduction: 0 };
  const { multiplyAddsSkipped, blocksSkipped, distributions } = chosen.effect;
  const { latency } = chosen;
  return {
    ...{ multiplyAddsSkipped, blocksSkipped },
    ...{ latencyReduction: latencyReduction(latency), latency },
    ...(distributions && { scores: distributions.gate, exits: distributions.exit }),
  };
}

/** What a policy says of its certificate. */
export function promiseOf(
  { groups, worstPValue: _, ...tested }: Certificate,
  { metric, delta, joint, ladders }: Rule,
  data: Promised['data'],
): Promised {
  return {
    metric,
    confidence: 1 - delta * (ladders ?? 1),
    ...(joint && { joint }),
    ...(ladders !== undefined && { ladders }),
    limit: tested.limit,
    items: tested.items,
    events: tested.events,
    ...(tested.gained !== undefined && { gained: tested.gained }),
    risk: tested.risk,
    pValue: tested.pValue,
    upperBound: tested.upperBound,
    ...(groups.length > 0 && { groups: [...groups] }),
    data,
  };
}

/** The same of a limit by another metric, which the policy keeps as well. */
export function alsoOf(
  { groups, worstPValue: _, ...tested }: Certificate,
  { metric }: Rule,
): NonNullable<Promised['also']>[number] {
  return { metric, ...tested, ...(groups.length > 0 && { groups: [...groups] }) };
}
