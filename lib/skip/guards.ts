/** Guards for important answers: an item with such an answer, or nearly one, runs again in full. */

import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { argMax } from '../numeric/softmax.js';
import { classWith } from '../util/labels.js';
import { late } from '../util/late.js';
import { type Meaning, probabilities } from './scores.js';

export const guardSchema = late(() =>
  z
    .strictObject({
      labels: z
        .array(z.union([z.string(), z.int().min(0)]))
        .min(1)
        .meta({ description: 'Classes by index, or by name where the policy has labels.' }),
      action: z.literal('verify').optional().meta({ description: "Only 'verify'; older files have it." }),
      margin: z.number().min(0).max(1).optional().meta({
        description: 'Also when the class is within this probability of the best one; 0 by default.',
      }),
    })
    .meta({
      description:
        'Labels whose answers are verified: when a run that skipped blocks gives one, the item runs in full, and that answer counts.',
    }),
);

/** Answers that are verified by a run in full when a skipped run gives them. */
export type Guard = z.infer<ReturnType<typeof guardSchema>>;

/** A guard with its classes as indices. */
export interface ResolvedGuard {
  readonly classes: readonly number[];
  readonly margin: number;
}

/** @throws ResidualSkipError INVALID_POLICY for a name that is not a label */
export function resolveGuards(
  guards: readonly Guard[],
  labels: readonly string[] | undefined,
): ResolvedGuard[] {
  return guards.map(({ labels: named, margin = 0 }) => ({
    margin,
    classes: named.map((label) => {
      const index = typeof label === 'number' ? label : classWith(label, labels ?? []);
      if (typeof index === 'number') return index;
      const none = labels
        ? `which is not one of its labels; expected one of ${labels.join(', ')}`
        : 'but it has no labels; use class indices';
      const known = index === 'several' ? 'which several classes have; use class indices' : none;
      throw new ResidualSkipError('INVALID_POLICY', `policy: it guards the label '${label}', ${known}`);
    }),
  }));
}

/** The answers that the guards cover, each once: its name, or `class 3` if the policy has no names. */
export function guardedAnswers(guards: readonly Guard[], labels: readonly string[] | undefined): string[] {
  const named = guards
    .flatMap((guard) => guard.labels)
    .map((label) => (typeof label === 'number' ? (labels?.[label] ?? `class ${label}`) : label));
  return [...new Set(named)];
}

/** Whether an answer touches a guarded class: the class is the best one or within the margin of it. */
export function isGuarded(scores: Float32Array, meaning: Meaning, guards: readonly ResolvedGuard[]): boolean {
  if (guards.length === 0) return false;
  const likely = probabilities(scores, meaning);
  const best = likely[argMax(likely)]!;
  // Scores that are NaN or infinite tell no classes apart.
  if (likely.some(Number.isNaN)) return true;
  return guards.some(({ classes, margin }) =>
    classes.some((index) => index < scores.length && best - likely[index]! <= margin),
  );
}
