/**
 * What a calibration can turn: for each skippable block a gate, behind blocks an early exit. Each has a head fitted on
 * the frozen network, and for each fitting item a score (higher: safer to skip), the loss of turning it, and the work
 * that is saved.
 */
import type { Program } from '../model/program.js';
import type { Head } from '../skip/attach.js';
import { BlockMode } from '../skip/mode.js';
import { argMax, softmax } from '../skip/scores.js';
import type { Evaluator, Outcome } from './evaluator.js';
import { applyLinear, fitTemperature, ridge, scaleLinear } from './regression.js';

export interface Lever {
  readonly kind: 'exit' | 'gate';
  readonly block: string;
  readonly head: Head;
  /** Of the network's multiply-adds, that turning it saves. */
  readonly saving: number;
  /** For each item: pull the lever where this is at least a threshold. */
  readonly scores: Float64Array;
  /** For each item: 1 where pulling this lever alone changes the answer. */
  readonly losses: Uint8Array;
}

/** What the full network said of the items, on which everything is fitted. */
export interface FullPass {
  readonly items: readonly Float32Array[];
  readonly outcomes: readonly Outcome[];
  readonly answers: readonly number[];
}

const PENALTY = 1e-3;
/** An exit this close to the end saves too little to pay for its head. */
const LEAST_SAVING = 0.02;

/** Index of the largest logit; -1 when any is NaN. */
export function answerOf(logits: Float32Array): number {
  return logits.some(Number.isNaN) ? -1 : argMax(logits);
}

function largestProbability(logits: Float32Array): number {
  const probabilities = softmax(logits);
  return probabilities[argMax(probabilities)]!;
}

/** Outputs of withFeatures(program): the program's own, then input and output of every block. */
function featureOf(
  { outputs }: Outcome,
  program: Program,
  block: number,
  end: 'input' | 'output',
): Float32Array {
  const own = outputs.length - 2 * program.blocks.length;
  return outputs[own + 2 * block + (end === 'output' ? 1 : 0)]!;
}

/** An exit behind each block where something worth while remains to be saved. */
export function fitExits(program: Program, { outcomes, answers }: FullPass, logits: number): Lever[] {
  const levers: Lever[] = [];
  const targets = outcomes.map(({ outputs }) => outputs[logits]!);
  for (const [index, block] of program.blocks.entries()) {
    const done = program.blocks.slice(0, index + 1).reduce((sum, { cost }) => sum + cost.multiplyAdds, 0);
    const rest = program.blocks.slice(index + 1).reduce((sum, { cost }) => sum + cost.multiplyAdds, 0);
    const saving = rest / program.cost.multiplyAdds;
    if (saving < LEAST_SAVING || done === 0) continue;
    const features = outcomes.map((outcome) => featureOf(outcome, program, index, 'output'));
    const fitted = ridge(features, targets, PENALTY);
    const raw = features.map((x) => applyLinear(fitted, x));
    const head = scaleLinear(fitted, fitTemperature(raw, answers));
    const scaled = features.map((x) => applyLinear(head, x));
    levers.push({
      kind: 'exit',
      block: block.name,
      head,
      saving,
      scores: Float64Array.from(scaled, largestProbability),
      losses: Uint8Array.from(scaled, (z, i) => (answerOf(z) === answers[i] ? 0 : 1)),
    });
  }
  return levers;
}

/** Kullback-Leibler divergence of two softmax distributions, in nats. */
function divergence(full: Float32Array, skipped: Float32Array): number {
  const log = (z: Float32Array) => {
    const top = z.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const total = top + Math.log(z.reduce((sum, value) => sum + Math.exp(value - top), 0));
    return (i: number) => z[i]! - total;
  };
  const [p, q] = [log(full), log(skipped)];
  return full.reduce((sum, _, i) => sum + Math.exp(p(i)) * (p(i) - q(i)), 0);
}

/**
 * A gate for each skippable block without one: its head predicts, from the block's input, the logarithm of how far
 * leaving the block out moves the answer.
 */
export async function fitGates(
  evaluator: Evaluator,
  { items, outcomes, answers }: FullPass,
  logits: number,
  onItems: (count: number) => void,
): Promise<Lever[]> {
  const { program } = evaluator;
  const levers: Lever[] = [];
  for (const [index, block] of program.blocks.entries()) {
    if (!block.skippable || block.gate) continue;
    const alone = evaluator.policy((i) => (i === index ? BlockMode.skip : BlockMode.run));
    const skipped = await evaluator.run(items, alone, onItems);
    const targets = outcomes.map(({ outputs }, i) =>
      Float32Array.of(Math.log(divergence(outputs[logits]!, skipped[i]!.outputs[logits]!) + 1e-6)),
    );
    const features = outcomes.map((outcome) => featureOf(outcome, program, index, 'input'));
    const head = ridge(features, targets, PENALTY);
    levers.push({
      kind: 'gate',
      block: block.name,
      head,
      saving: block.cost.multiplyAdds / program.cost.multiplyAdds,
      scores: Float64Array.from(features, (x) => -applyLinear(head, x)[0]!),
      losses: Uint8Array.from(skipped, ({ outputs }, i) =>
        answerOf(outputs[logits]!) === answers[i] ? 0 : 1,
      ),
    });
  }
  return levers;
}
