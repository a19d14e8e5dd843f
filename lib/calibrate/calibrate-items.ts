/**
 * Calibration of a frozen network on prepared items: fits exits, orders settings of their thresholds from "no
 * skipping" to the most aggressive, and certifies the furthest one that keeps its promise. See docs/calibration.md.
 */

import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program/program.js';
import { type AnyExit, attachExits, type ExitSpec } from '../skip/attach.js';
import { resolveGuards } from '../skip/guards.js';
import { decodeExits, type EncodedHeads, encodeExits } from '../skip/head-codec.js';
import type { SkipPolicy } from '../skip/policy.js';
import { answerOf, checkedAnswer } from './answers.js';
import { budgetOf } from './budget.js';
import {
  boundOf,
  type Certified,
  certificateOf,
  certifyEach,
  promiseOf,
  type Rule,
  trivialCertificate,
} from './certify.js';
import type { FittedExit } from './chain.js';
import {
  checkAnswers,
  checkOrdering,
  checkProgram,
  checkReference,
  distinctItems,
  rulesOf,
} from './checks.js';
import { Evaluator, runAll } from './evaluator.js';
import { byClass, contributionsOf, examplesOf } from './examine.js';
import { type Fitting, fitExits, fittingWork } from './fit.js';
import { checkGroups, className, groupsOf } from './groups.js';
import { expectedOf, QUICK, Stopwatch, THOROUGH } from './latency.js';
import { exitsOf, type Measured, measure } from './measure.js';
import type { CalibrationItem, CalibrationOptions, FitImages } from './options.js';
import { savingsOf } from './places.js';
import { Programs } from './programs.js';
import type { Calibration, SettingResult } from './result.js';
import { ResumableBackend } from './resume.js';
import { leversOf, type Setting, settingsOf, usefulExits, worthTesting } from './settings.js';
import { checkParts, contentHash, fingerprint, LEAST_FIT, type Part, split } from './split.js';
import { gatesOf, hasGates, type Judging, NEVER, type Table, tableOf } from './table.js';

const SETTINGS = 96;
const COPIES = 15;
/**
 * Number of folds: heads are fitted without each fold, to be judged on it, and then on all items. The last fold is
 * `order`.
 */
const FOLDS = 3;
/** Most images of `fit`, and bytes of them, that order the settings of a model's own exits. */
const [MOST_ORDERING, MOST_BYTES] = [2000, 2 ** 30];

/**
 * @param network of the model at the shapes of the items, with one float32 output [N, classes]
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too little data, NaN logits, labels missing),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrateItems(
  backend: Backend,
  network: Program | Programs,
  sha256: string,
  given: readonly CalibrationItem[],
  options: CalibrationOptions = {},
): Promise<Calibration> {
  const { seed = 0, copies = COPIES, labels } = options;
  const programs = Programs.of(network);
  const program = programs.main;
  const reference = options.reference && Programs.of(options.reference.program);
  const rules = rulesOf(options);
  checkProgram(program, reference?.main);
  if (reference) checkReference(program, reference.main);
  const guards = resolveGuards(options.guards ?? [], labels);
  const items = distinctItems(given, programs, options);
  // The model's own exits were trained elsewhere: nothing is fitted. Nor is it where nothing can be skipped.
  const skips = program.blocks.some(({ skippable }) => skippable);
  const own = skips ? program.ownExits?.list.map(({ after }): AnyExit => ({ after })) : [];
  const unlimited = options.budget !== undefined || options.budgetMs !== undefined;
  if (own && options.fit) checkOrdering(options);
  const first = own ? (options.fit ? 'certify' : 'order') : options.fit ? 'order' : 'fit';
  const fitsOnItems = first === 'fit';
  const parts = split(items, seed, first);
  checkParts(parts, rules[0], first, unlimited);
  const take = (part: Part) => parts[part].map((i) => items[i]!);
  const chosenFrom =
    first === 'certify'
      ? await someOf(without(options.fit!, items), items[0]!.input.byteLength)
      : [...take('fit'), ...take('order')];
  const certify = take('certify');

  const nameOf = (index: number) => className(index, labels);
  const foldOf = (i: number) => (i >= parts.fit.length ? FOLDS - 1 : i % (FOLDS - 1));
  const fitting: Omit<Fitting, 'onItems'> = {
    ...{ seed, copies, className: nameOf },
    chains: options.fit
      ? [() => true]
      : [...Array(FOLDS).keys()].map((fold) => (i: number) => foldOf(i) !== fold).concat(() => true),
  };
  const source = options.fit ? without(options.fit, items) : sourceOf(chosenFrom);
  // Exits that are hardly taken are left out, and the others fitted again. A budget has no limit to judge them by.
  const refits = first === 'order' && !own && !unlimited;
  const passes = reference || hasGates(program) ? 2 : 1;
  const total =
    (own ? 0 : (refits ? 2 : 1) * fittingWork(program, source.count, fitting)) +
    passes * (chosenFrom.length + certify.length + (refits ? parts.order.length : 0)) +
    (passes + rules.length) * certify.length;
  let done = 0;
  const onItems = (count: number) => {
    done += count;
    options.onProgress?.(Math.min(done, total), total);
  };
  const judging: Judging = { backend, programs, reference, guards, metric: rules[0].metric, onItems };

  // Before settings are tested, only the sizes of groups are read from the items that certify.
  const labelled = items.every(({ label }) => label !== undefined);
  const classes =
    labelled || !options.perClass
      ? certify.map(({ label }) => label ?? 0)
      : await fullAnswers(backend, reference ?? programs, certify);
  const groups = groupsOf(certify, classes, options);
  const limits = rules.map((rule) => ({ rule, grouping: checkGroups(groups, rule.groupLimit, rule.delta) }));

  const fitOn = (on: Backend, behind?: ReadonlySet<string>) =>
    fitExits(on, programs, source, { ...fitting, onItems, behind });
  const engine = backend instanceof ResumableBackend ? backend.engine : backend;
  const fitChains = () =>
    backend instanceof ResumableBackend && !options.fit
      ? remembered(backend, program, chosenFrom, { seed, copies }, fitOn)
      : fitOn(engine);
  const judge = async (chains: readonly (readonly AnyExit[])[]) => {
    const exits = chains.at(-1) ?? [];
    // Heads that have seen none of the items are judged on all of them at once.
    const honest = fitsOnItems
      ? await foldTables(judging, chains, chosenFrom, foldOf)
      : [await tableOf(judging, exits, chosenFrom)];
    const levers = leversOf(honest, savingsOf(program, exits));
    const settings = exits.length > 0 ? settingsOf(levers, options.settings ?? SETTINGS) : [];
    return { exits, honest, order: honest.at(-1)!, settings };
  };
  let judged = await judge(own ? [own] : await fitChains());
  checkAnswers(
    judged.honest.flatMap(({ answers }) => [...answers]),
    nameOf,
  );
  if (refits) {
    const useful = usefulExits(
      judged.settings,
      judged.order,
      rules.map(({ limit }) => limit),
    );
    // A chain's exits are asked even where none of the items leave.
    if (useful.size > 0 && useful.size < judged.exits.length)
      judged = await judge(await fitOn(engine, useful));
  }
  const { exits, order, settings } = judged;
  const stopwatch = new Stopwatch(backend, programs, guards, reference);
  try {
    const budget = budgetOf(options, stopwatch, order);
    const bolder = worthTesting(settings, order, unlimited ? 1 : 2 * rules.at(-1)!.limit, budget);
    // Another network's answers can change without any exit, too.
    const worth = reference && !budget ? [noExits(exits.length), ...bolder] : bolder;
    const table = await tableOf(judging, exits, certify);
    const results = worth.map(({ thresholds }) => measure(table, thresholds));
    const inputs = certify.map(({ input }) => input);
    const losses = results.map(({ byItem }) => byItem.losses);
    const certified = certifyEach(losses, limits);
    const [careful, ...others] = certified;
    if (reference && !budget && careful.chosen < 0) throw outOfReach(results[0]!, careful.rule);
    const tested = results.map(
      ({ byItem: _, profiles: __, came: ___, ...rest }, i): SettingResult => ({
        price: worth[i]!.price,
        ...rest,
        ...certificateOf(losses[i]!, careful.rule, careful.grouping),
        latency: stopwatch.time(exitsOf(table, worth[i]!.thresholds), inputs, QUICK),
      }),
    );
    const data = {
      sha256: fingerprint(items),
      seed,
      fit: parts.fit.length,
      order: parts.order.length,
      certify: parts.certify.length,
    };
    const settle = async ({ rule, grouping }: Certified, chosen: number) => {
      const result = results[chosen];
      const policyExits = result && exitsOf(table, worth[chosen]!.thresholds);
      if (policyExits) await checkRun(judging, policyExits, table, result);
      const certificate =
        chosen < 0
          ? trivialCertificate(certify.length, rule, grouping)
          : budget
            ? boundOf(losses[chosen]!, rule)
            : certificateOf(losses[chosen]!, rule, grouping);
      const latency = policyExits && stopwatch.time(policyExits, inputs, THOROUGH);
      const policy: SkipPolicy = {
        version: 1,
        model: { sha256 },
        ...(options.reference && { reference: { sha256: options.reference.sha256 } }),
        blocks: {},
        // Where nothing is certified, gates of the model must not decide either.
        ...(chosen < 0 && { default: 'run' }),
        // Without this, a policy would keep the model's own exits, which nothing has certified.
        ...((policyExits || program.ownExits) && { heads: encodeExits(policyExits ?? []) }),
        ...(options.guards && { guards: [...options.guards] }),
        ...(labels && { labels: [...labels] }),
        promise: promiseOf(certificate, rule, data),
        expected: {
          ...expectedOf(result, latency),
          ...(result && { scores: result.profiles.gate, exits: result.profiles.exit }),
        },
      };
      return { policy, policyExits, result };
    };
    // A budget was chosen before `certify` was used: the upper bound of that one setting's risk is promised.
    const chosen = budget ? tested.length - 1 : careful.chosen;
    const { policy, policyExits, result } = await settle(careful, chosen);
    const further: SkipPolicy[] = [];
    for (const other of others) further.push((await settle(other, other.chosen)).policy);
    options.onProgress?.(total, total);
    return {
      policy: { ...policy, ...(further.length > 0 && { settings: further }) },
      settings: tested,
      chosen,
      bolder: others.map((other) => other.chosen),
      contributions: policyExits ? contributionsOf(table, policyExits, result!) : [],
      classes: byClass(labelled ? classes : [...table.answers], result, labels),
      examples: examplesOf(table, result, labels),
      certifiedOn: certify.map((item) => item.sha256),
      duplicates: given.length - items.length,
      resumed: backend instanceof ResumableBackend ? backend.counts : null,
    };
  } finally {
    stopwatch.release();
  }
}

/** The setting that takes no exit. */
function noExits(exits: number): Setting {
  return { price: Number.MAX_VALUE, thresholds: Array.from({ length: exits }, () => NEVER) };
}

function outOfReach({ byItem }: Measured, { limit }: Rule): ResidualSkipError {
  const { losses } = byItem;
  const events = losses.filter((loss) => loss > 0).length;
  return new ResidualSkipError(
    'INVALID_DATA',
    `reference: without any exit, ${events} of ${losses.length} answers already differ from its own, so no policy keeps the limit ` +
      `of ${limit}; give a higher limit or more images, or quantise the network again with more layers in float`,
  );
}

function sourceOf(items: readonly CalibrationItem[]): FitImages {
  return { count: items.length, load: async (index) => items[index]!.input };
}

/**
 * Images that order settings, spread evenly over their source: at most 2,000, or 1 GiB.
 * @throws ResidualSkipError INVALID_DATA when there are too few
 */
async function someOf({ count, load }: FitImages, bytesOfOne: number): Promise<CalibrationItem[]> {
  const most = Math.min(count, MOST_ORDERING, Math.floor(MOST_BYTES / bytesOfOne));
  const items: CalibrationItem[] = [];
  for (let i = 0; i < most; i++) {
    const input = await load(Math.floor((i * count) / most));
    if (input) items.push({ input, sha256: contentHash(input) });
  }
  if (items.length >= LEAST_FIT) return items;
  throw new ResidualSkipError(
    'INVALID_DATA',
    `fit: ${items.length} of its ${count} images can be used: the others can't be read, or are among the data; ` +
      `${LEAST_FIT} are needed to order settings`,
  );
}

/** The images but those that are among the items: what was fitted on an item can't be judged by it. */
function without(source: FitImages, items: readonly CalibrationItem[]): FitImages {
  const known = new Set(items.map((item) => item.sha256));
  return {
    count: source.count,
    load: async (index) => {
      const input = await source.load(index);
      return input && known.has(contentHash(input)) ? undefined : input;
    },
  };
}

async function fullAnswers(
  backend: Backend,
  programs: Programs,
  items: readonly CalibrationItem[],
): Promise<number[]> {
  const evaluator = new Evaluator(backend, programs);
  try {
    const outcomes = await evaluator.run(
      items.map(({ input }) => input),
      evaluator.policy(runAll),
    );
    return outcomes.map(({ outputs }) => checkedAnswer(outputs[0]!));
  } finally {
    evaluator.release();
  }
}

/** Tables of each fold of the items, by heads that were fitted without it; the last fold is `order`. */
async function foldTables(
  judging: Judging,
  chains: readonly (readonly AnyExit[])[],
  items: readonly CalibrationItem[],
  foldOf: (item: number) => number,
): Promise<Table[]> {
  const tables: Table[] = [];
  for (let fold = 0; fold < FOLDS; fold++) {
    const own = items.filter((_, i) => foldOf(i) === fold);
    tables.push(await tableOf(judging, chains[fold]!, own));
  }
  return tables;
}

/**
 * What was counted for the chosen setting is what running it does.
 * @throws ResidualSkipError INTERNAL
 */
async function checkRun(
  { backend, programs: own, onItems }: Judging,
  exits: readonly ExitSpec[],
  { items, end }: Table,
  { byItem }: Measured,
): Promise<void> {
  const grown = own.map((program) => attachExits(program, exits));
  const evaluator = new Evaluator(backend, grown);
  try {
    const inputs = items.map(({ input }) => input);
    const outcomes = await evaluator.run(inputs, evaluator.policy(gatesOf(grown.main)), onItems);
    const differs = outcomes.findIndex(({ outputs, ran }, i) => {
      // A guarded item was counted as it is run in full.
      if (byItem.losses[i] === 0 && !byItem.ran[i]!.includes('0')) return false;
      return answerOf(outputs[0]!) !== byItem.answers[i] || ran.join('') !== byItem.ran[i];
    });
    if (differs < 0) return;
    throw new ResidualSkipError(
      'INTERNAL',
      `calibration: item ${differs} of the ${end.answers.length} that certify behaves differently when the policy runs; ` +
        'please report it with the model',
    );
  } finally {
    evaluator.release();
  }
}

/** Chains of heads, taken from the state of an earlier calibration where it fitted the same. */
async function remembered(
  backend: ResumableBackend,
  program: Program,
  items: readonly CalibrationItem[],
  options: { readonly seed: number; readonly copies: number },
  fitOn: (on: Backend) => Promise<FittedExit[][]>,
): Promise<FittedExit[][]> {
  const inputs = JSON.stringify([items.map(({ sha256 }) => sha256), options]);
  const encoded = await backend.remember(program, inputs, async (engine) => {
    const chains = await fitOn(engine);
    const heads = chains.map((chain) => encodeExits(chain.map((exit) => ({ ...exit, threshold: 0 }))));
    return JSON.stringify(heads);
  });
  const chains: EncodedHeads[] = JSON.parse(encoded);
  return chains.map((chain) =>
    decodeExits(chain).map(({ threshold: _, head, ...exit }) => ({ ...exit, head: head! })),
  );
}
