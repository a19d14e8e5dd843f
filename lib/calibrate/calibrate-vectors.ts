/**
 * Calibration of a network whose answers are vectors, on prepared items: orders sets of blocks to leave out, from none to many, and
 * certifies the largest one that keeps its promise about the vectors. See docs/calibration.md.
 */
import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import { mean } from '../numeric/statistics.js';
import { BlockMode } from '../skip/compiled-policy.js';
import { encodeExits } from '../skip/head-codec.js';
import type { SkipPolicy } from '../skip/policy.js';
import { mostLoss, type VectorMetric } from '../skip/promise.js';
import type { TensorData } from '../tensor/tensor.js';
import { type Certified, certificateOf, certifyEach, promiseOf, trivialCertificate } from './certify.js';
import { checkSkippable, distinctItems, rulesOf } from './checks.js';
import { Evaluator, type Outcome, runAll } from './evaluator.js';
import { checkGroups, groupsOf } from './groups.js';
import { expectedOf, QUICK, Stopwatch, THOROUGH } from './latency.js';
import type { CalibrationItem, CalibrationOptions } from './options.js';
import { Programs } from './programs.js';
import type { Calibration, SettingResult } from './result.js';
import { ResumableBackend } from './resume.js';
import { checkParts, fingerprint, split } from './split.js';
import { hasGates } from './table.js';
import { lossesOf } from './vector-losses.js';

/** Most items that sets of blocks are compared on. */
const COMPARED = 200;
/** Blocks that are tried beside those of a set: the ones that did least harm when they were tried before. */
const TRIED = 4;

/** The vector of an item, from what its run gave. */
export type VectorOf = (outcome: Outcome, input: TensorData) => Float32Array;

export interface VectorOptions extends Omit<CalibrationOptions, 'metric'> {
  /** `cosine` when left out. */
  readonly metric?: VectorMetric | undefined;
}

/** Items that ran with some blocks left out. */
interface Ran {
  readonly vectors: readonly Float32Array[];
  /** Shares of the network's multiply-adds and of its blocks that were skipped, means over the items. */
  readonly multiplyAddsSkipped: number;
  readonly blocksSkipped: number;
}

/**
 * @param network of the model at the shapes of the items
 * @throws ResidualSkipError INVALID_ARGUMENT (options for networks with classes), INVALID_DATA (too little data),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrateVectors(
  backend: Backend,
  network: Program | Programs,
  sha256: string,
  given: readonly CalibrationItem[],
  vectorOf: VectorOf,
  options: VectorOptions = {},
): Promise<Calibration> {
  const { seed = 0, metric = 'cosine' } = options;
  const programs = Programs.of(network);
  const program = programs.main;
  checkOptions(options);
  const rules = rulesOf({ ...options, metric });
  checkSkippable(program);
  const items = distinctItems(given, programs, options);
  const parts = split(items, seed, 'order');
  checkParts(parts, rules[0], 'order', false);
  const order = parts.order.map((i) => items[i]!);
  const certify = parts.certify.map((i) => items[i]!);
  const groups = groupsOf(certify, [], options);
  const limits = rules.map((rule) => ({
    rule,
    grouping: checkGroups(groups, rule.groupLimit, rule.delta, mostLoss(metric)),
  }));

  const evaluator = new Evaluator(backend, programs);
  let done = 0;
  const onItems = (count: number) => {
    done += count;
    options.onProgress?.(done, Math.max(done, total));
  };
  const blocks = [...program.blocks.keys()].filter((i) => program.blocks[i]!.skippable);
  const compared = order.slice(0, COMPARED);
  let total = compared.length * (1 + blocks.length * (1 + TRIED)) + order.length + 2 * certify.length;
  const run = async (
    some: readonly CalibrationItem[],
    skipped: ReadonlySet<number> | 'none',
  ): Promise<Ran> => {
    const policy = evaluator.policy(
      skipped === 'none' ? runAll : (block) => modeOf(program, block, skipped.has(block)),
    );
    const inputs = some.map(({ input }) => input);
    const outcomes = await evaluator.run(inputs, policy, onItems);
    return {
      vectors: outcomes.map((outcome, i) => vectorOf(outcome, inputs[i]!)),
      multiplyAddsSkipped: mean(outcomes.map(({ ran }, i) => savedBy(programs.at(inputs[i]!), ran))),
      blocksSkipped: mean(outcomes.map(({ ran }) => ran.filter((digit) => digit === 0).length / ran.length)),
    };
  };
  const stopwatch = new Stopwatch(backend, programs, []);
  try {
    const inFull = await run(compared, 'none');
    checkLength(metric, inFull.vectors[0]!.length);
    const riskOf = async (skipped: ReadonlySet<number>) =>
      mean(lossesOf(metric, { full: inFull.vectors, skipping: (await run(compared, skipped)).vectors }));
    const sets = await setsOf(program, blocks, riskOf, 2 * rules.at(-1)!.limit);

    const isRecall = metric.startsWith('recall');
    const corpus = isRecall ? await run(order, 'none') : undefined;
    const full = await run(certify, 'none');
    const inputs = certify.map(({ input }) => input);
    const results: Ran[] = [];
    const losses: number[][] = [];
    total = done + sets.length * (certify.length + (isRecall ? order.length : 0));
    for (const skipped of sets) {
      const ran = await run(certify, skipped);
      const rest = corpus && { full: corpus.vectors, skipping: (await run(order, skipped)).vectors };
      results.push(ran);
      losses.push(lossesOf(metric, { full: full.vectors, skipping: ran.vectors }, rest));
    }
    const certified = certifyEach(losses, limits);
    const [careful, ...others] = certified;
    const tested = results.map(
      ({ multiplyAddsSkipped, blocksSkipped }, i): SettingResult => ({
        price: sets[i]!.size,
        ...{ multiplyAddsSkipped, blocksSkipped, exits: {} },
        ...certificateOf(losses[i]!, careful.rule, careful.grouping),
        latency: stopwatch.time([], inputs, QUICK, sets[i]),
      }),
    );
    const data = {
      ...{ sha256: fingerprint(items), seed, fit: 0 },
      ...{ order: parts.order.length, certify: parts.certify.length },
    };
    const settle = ({ rule, grouping, chosen }: Certified): SkipPolicy => {
      const result = results[chosen];
      const skipped = sets[chosen] ?? new Set<number>();
      const certificate = result
        ? certificateOf(losses[chosen]!, rule, grouping)
        : trivialCertificate(certify.length, rule, grouping);
      const latency = result && stopwatch.time([], inputs, THOROUGH, skipped);
      return {
        version: 1,
        model: { sha256 },
        blocks: Object.fromEntries(
          [...skipped].sort((a, b) => a - b).map((i) => [program.blocks[i]!.name, 'skip']),
        ),
        // Where nothing is certified, gates of the model must not decide either.
        ...(!result && { default: 'run' }),
        ...(program.ownExits && { heads: encodeExits([]) }),
        promise: promiseOf(certificate, rule, data),
        expected: expectedOf(result, latency),
      };
    };
    const further = others.map(settle);
    options.onProgress?.(done, done);
    return {
      policy: { ...settle(careful), ...(further.length > 0 && { settings: further }) },
      settings: tested,
      chosen: careful.chosen,
      bolder: others.map(({ chosen }) => chosen),
      ...{ contributions: [], classes: [], examples: { most: [], least: [] } },
      certifiedOn: certify.map((item) => item.sha256),
      duplicates: given.length - items.length,
      resumed: backend instanceof ResumableBackend ? backend.counts : null,
    };
  } finally {
    stopwatch.release();
    evaluator.release();
  }
}

function checkOptions({ metric, budget, budgetMs, perClass, guards, fit, reference }: VectorOptions): void {
  const forClasses = { budget, budgetMs, perClass: perClass || undefined, guards, fit, reference };
  const name = Object.entries(forClasses).find(([, value]) => value !== undefined)?.[0];
  if (name === undefined) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${name}: it doesn't go with the metric '${metric}', which is about the output itself, not about classes; omit it`,
  );
}

/** Angles between single numbers say nothing of their size. */
function checkLength(metric: VectorMetric, length: number): void {
  if (length > 1 || metric === 'relative') return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `metric: '${metric}' is about angles of vectors, but the output is a single number; take relative`,
  );
}

function modeOf({ blocks }: Program, block: number, skipped: boolean): number {
  if (skipped) return BlockMode.skip;
  return blocks[block]!.gate ? BlockMode.gate : BlockMode.run;
}

function savedBy({ blocks, cost }: Program, ran: Uint8Array): number {
  return (
    blocks.reduce((sum, block, b) => (ran[b] === 0 ? sum + block.cost.multiplyAdds : sum), 0) /
    cost.multiplyAdds
  );
}

/**
 * Sets of blocks to leave out, each with one more than the one before: the one that adds least risk for what it saves. Where the
 * network has gates of its own, the first set is empty.
 * @param riskOf mean loss with a set left out
 * @param most sets with a higher risk are not worth a test
 */
async function setsOf(
  program: Program,
  blocks: readonly number[],
  riskOf: (skipped: ReadonlySet<number>) => Promise<number>,
  most: number,
): Promise<ReadonlySet<number>[]> {
  const sets: ReadonlySet<number>[] = [];
  let [set, risk] = [new Set<number>(), 0];
  if (hasGates(program)) {
    risk = await riskOf(set);
    if (risk > most) return [];
    sets.push(set);
  }
  // Those that did least harm first.
  let left = [...blocks];
  while (left.length > 0) {
    const tried: { readonly block: number; readonly risk: number; readonly price: number }[] = [];
    for (const block of left.slice(0, set.size === 0 ? left.length : TRIED)) {
      const with_ = await riskOf(new Set([...set, block]));
      const { multiplyAdds } = program.blocks[block]!.cost;
      tried.push({ block, risk: with_, price: (with_ - risk) / Math.max(1, multiplyAdds) });
    }
    tried.sort((a, b) => a.price - b.price);
    const best = tried.find((one) => one.risk <= most);
    if (!best) break;
    set = new Set([...set, best.block]);
    risk = best.risk;
    sets.push(set);
    const known = new Set(tried.map(({ block }) => block));
    left = [...tried.map(({ block }) => block), ...left.filter((block) => !known.has(block))].filter(
      (block) => block !== best.block,
    );
  }
  return sets;
}
