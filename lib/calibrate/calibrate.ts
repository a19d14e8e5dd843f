/** Calibrates a model: `residual-skip calibrate` as a function, which strings the steps of a calibration together. */
import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { ReferenceBackend } from '../backends/reference.js';
import { type Data, openDataModel, sampled } from '../classify/data-model.js';
import { dataShape, type Item } from '../classify/images.js';
import { taskShape } from '../classify/task.js';
import { Unusable } from '../classify/unusable.js';
import { Work, workShape } from '../classify/work.js';
import { encodeThumbnail } from '../data/image.js';
import { ResidualSkipError } from '../errors.js';
import { loadModel } from '../model/load.js';
import { inPrecision, isReduced, type Program } from '../model/program/program.js';
import { Tail } from '../session/tail.js';
import type { SkipPolicy } from '../skip/policy.js';
import { isVectorMetric, type Promised } from '../skip/promise.js';
import type { Tensor } from '../tensor/tensor.js';
import { parsePart } from '../util/validation.js';
import {
  boundOf,
  type Certified,
  certificateFor,
  certificateOf,
  certifyEach,
  type Further,
  type Ruled,
} from './certify/certify.js';
import { checkGroups, type Group, groupsOf, type Rule } from './certify/groups.js';
import { recordUse } from './certify/uses.js';
import { type Promisable, promisable } from './checks.js';
import { ClassStrategy } from './classes.js';
import { ESTIMATED, itemOptions, readItems } from './data.js';
import {
  type CalibrateOptions,
  type CalibrationOptions,
  checkConflicts,
  checkForVectors,
  optionShape,
} from './options.js';
import { alsoOf, type MeasuredSetting, policyOf, promiseOf } from './policy.js';
import { programsOf } from './prepared.js';
import type { Calibration, Example, SettingResult } from './report/result.js';
import type { Programs } from './run/evaluator.js';
import type { CalibrationItem } from './run/items.js';
import { type Effort, QUICK, Stopwatch, THOROUGH } from './run/latency.js';
import { ResumableBackend } from './run/resume.js';
import { describeData, type Split, splitItems } from './split.js';
import type { Setting, Strategy } from './strategy.js';
import { type Task, taskOf } from './task.js';
import { VectorStrategy } from './vectors.js';

const ALL_OPTIONS = { ...optionShape, ...dataShape(), ...taskShape(), ...workShape() };

/**
 * Makes a policy that skips blocks, with a certified limit on how far the answers move, for a frozen residual network; see
 * docs/calibration.md. What the answers are is known from the network or the files beside it, or said by the options `task` and `metric`;
 * see docs/tasks.md.
 *
 * The network runs many times: on thousands of items this takes minutes.
 *
 * Each calibration that reads these items to certify is recorded in a file of the user (below `$XDG_STATE_HOME/residual-skip`), whether
 * or not it makes a policy. If several read the same items and the best is chosen, its promise is void;
 * `policy.promise.data.uses` is their number.
 * @param model ONNX file, or a folder with one; a network of texts has `tokenizer.json` beside it
 * @param data a folder of images, a file that holds many, or an iterable of images or tensors; a file of texts, or an iterable of
 * them; or, for any network, tensors by input: an iterable, or NumPy's files. Labels are needed only for the metric `accuracy`. The
 * prepared items are kept in memory.
 * @returns the policy, for `JSON.stringify` into a file or the option `policy` of InferenceSession.create, and what was tested
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (images that can't be used, all named; too few of them; all answered
 * alike), INVALID_SHAPE, UNSUPPORTED_MODEL (nothing to skip), ABORTED (an AbortError), and what ImageClassifier.from,
 * TextClassifier.from or Embedder.from throws
 */
export async function calibrate(
  model: string,
  data: Data,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const { own, rest } = parsePart(ALL_OPTIONS, options);
  checkConflicts(own);
  const work = new Work('calibration', own);
  work.check();
  // This session only prepares items: the calibration runs the network on a backend of its own.
  const { maxPixels } = own;
  const preparing = { ...rest, backend: 'reference' as const, maxPixels, onNote: work.note };
  const { data: source, sample } = await sampled(data, work);
  const opened = await openDataModel(model, preparing, own.task, sample);
  try {
    const loaded = await loadModel(opened.file);
    const asked = { ...own, ...(own.dryRun && { confidence: ESTIMATED }) };
    let promised: Promisable | undefined;
    const read = await readItems(opened, source, asked, work, (first, labelled) => {
      const { main } = programsOf(loaded, opened, first);
      promised = promisable(asked, opened, main, labelled);
      if (promised.byBlocks) checkForVectors({ ...asked, metric: promised.metric });
    });
    const engine = engineOf(rest);
    const unusable = new Unusable([], opened.what);
    const staged = loaded.stages && { model: loaded, tail: new Tail(loaded, engine) };
    try {
      const backend = own.state === undefined ? engine : await ResumableBackend.open(engine, own.state);
      const inFloat = programsOf(loaded, opened, read.typical);
      const programs = inFloat.map((program) => inPrecision(program, own.precision));
      const given = await itemOptions(opened, read, asked, promised!, programs, work, unusable, staged);
      const original = isReduced(own.precision) && { program: inFloat, sha256: loaded.sha256 };
      const prepared = { ...given, original: given.original ?? (original || undefined) };
      const count = own.dryRun ? undefined : counting(work);
      const result = await calibrateItems(backend, programs, loaded.sha256, read.items, prepared, count);
      return await withThumbnails(result, read.byHash);
    } finally {
      unusable.noteFit(work.note);
      staged?.tail.release();
      engine.release();
    }
  } finally {
    await opened.session.release();
  }
}

function engineOf({
  backend = 'native',
  isa,
  threads,
}: Pick<CalibrateOptions, 'backend' | 'isa' | 'threads'>) {
  return backend === 'reference' ? new ReferenceBackend() : new NativeBackend({ isa, threads });
}

/** Called before the items that certify are read; returns how many calibrations have read them, if that is known. */
type CountUse = (calibration: unknown, certifiedOn: readonly string[]) => Promise<number | undefined>;

/**
 * Calibrates a frozen network on prepared items.
 * @param network of the model at the shapes of the items; with one float32 output [N, classes] for metrics of classes
 * @param countUse by default, nothing is counted
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too little data, NaN logits, labels missing),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrateItems(
  backend: Backend,
  network: Program | Programs,
  sha256: string,
  given: readonly CalibrationItem[],
  options: CalibrationOptions = {},
  countUse: CountUse = async () => undefined,
): Promise<Calibration> {
  const task = taskOf(backend, network, sha256, options);
  const strategy: Strategy =
    task.options.vectorOf || isVectorMetric(task.options.metric)
      ? new VectorStrategy(task)
      : new ClassStrategy(task);
  const stopwatch = new Stopwatch(backend, task.programs, task.guards, task.original);
  try {
    const split = splitItems(given, task, strategy.first);
    return await run(task, strategy, split, stopwatch, countUse);
  } finally {
    stopwatch.release();
    strategy.release();
  }
}

/** Orders settings, certifies them, and makes the policy. */
async function run(
  task: Task,
  strategy: Strategy,
  split: Split,
  stopwatch: Stopwatch,
  countUse: CountUse,
): Promise<Calibration> {
  const { options, backend, progress } = task;
  // Before settings are tested, only the sizes of groups are read from the items that certify.
  const groups = groupsOf(split.certify, await strategy.classesOf(split), options);
  const limits = task.rules.map((rule) => ({ rule, grouping: checkGroups(groups, rule) }));
  const groupings = task.further.map((rule) => ({ rule, grouping: checkGroups(groups, rule) }));
  const settings = await strategy.order(split);
  const certifiedOn = split.certify.map((item) => item.sha256);
  const data = describeData(split, options.seed);
  const uses = await countUse(identityOf(task, data, groups, settings), certifiedOn);
  const effects = await strategy.measure(settings, split.certify);
  const losses = effects.map(({ byItem }) => byItem.losses);
  const further: Further[] = groupings.map((one, m) => ({
    ...one,
    losses: effects.map(({ byItem }) => byItem.further[m]!),
  }));
  // A budget was chosen before `certify` was used: the upper bound of that one setting's risk is promised.
  const bounded = options.budget !== undefined;
  const certified: readonly [Certified, ...Certified[]] = bounded
    ? [{ ...limits[0]!, chosen: losses.length - 1 }]
    : certifyEach(losses, limits, further);
  const [first, ...others] = certified;
  if (task.original && first.chosen < 0) throw originalOutOfReach(losses[0]!, first.rule);
  const inputs = split.certify.map(({ input }) => input);
  const timed = (i: number, effort: Effort): MeasuredSetting => {
    const [setting, effect] = [settings[i]!, effects[i]!];
    return { setting, effect, latency: stopwatch.time(setting.exits ?? [], inputs, effort, setting.omitted) };
  };
  const tested = settings.map((_, i) => resultOf(timed(i, QUICK), first, groupings));
  const about = { ...data, ...(uses !== undefined && { uses }) };
  const policies: SkipPolicy[] = [];
  for (const one of certified) {
    const { chosen } = one;
    if (chosen >= 0) await strategy.verify(settings[chosen]!, effects[chosen]!);
    const promise = { ...promised(one, losses, further, about, bounded), ...options.about };
    policies.push(policyOf(task, chosen < 0 ? undefined : timed(chosen, THOROUGH), promise));
  }
  progress.finish();
  const [policy, ...bolder] = policies as [SkipPolicy, ...SkipPolicy[]];
  return {
    policy: { ...policy, ...(bolder.length > 0 && { settings: bolder }) },
    settings: tested,
    chosen: first.chosen,
    bolder: others.map(({ chosen }) => chosen),
    ...strategy.describe(settings[first.chosen], effects[first.chosen]),
    certifiedOn,
    duplicates: split.duplicates,
    resumed: backend instanceof ResumableBackend ? backend.counts : null,
  };
}

/** @param bounded whether the upper bound of the setting's risk is promised */
function promised(
  one: Certified,
  losses: readonly (readonly number[])[],
  further: readonly Further[],
  about: Promised['data'],
  bounded: boolean,
): Promised {
  const { rule, chosen } = one;
  const certificate = bounded ? boundOf(losses[chosen]!, rule) : certificateFor(one, losses, about.certify);
  const also = further.map((other) =>
    alsoOf(certificateFor({ ...other, chosen }, other.losses, about.certify), other.rule),
  );
  return { ...promiseOf(certificate, rule, about), ...(also.length > 0 && { also }) };
}

function resultOf(
  { effect, latency }: MeasuredSetting,
  { rule, grouping }: Certified,
  groupings: readonly Ruled[],
): SettingResult {
  const { byItem, multiplyAddsSkipped, blocksSkipped, exits } = effect;
  const own = certificateOf(byItem.losses, rule, grouping);
  const also = groupings.map((one, m) => certificateOf(byItem.further[m]!, one.rule, one.grouping));
  return {
    ...{ multiplyAddsSkipped, blocksSkipped, exits },
    ...own,
    worstPValue: Math.max(...[own, ...also].map(({ worstPValue }) => worstPValue)),
    ...(also.length > 0 && { also }),
    latency,
  };
}

function originalOutOfReach(losses: readonly number[], { limit }: Rule): ResidualSkipError {
  const events = losses.filter((loss) => loss > 0).length;
  return new ResidualSkipError(
    'INVALID_DATA',
    `original: without any exit, ${events} of ${losses.length} answers already differ from the original's, so no policy keeps the limit ` +
      `of ${limit}; quantise the network again with more layers in float, or decide for a higher limit, and certify on fresh images: ` +
      'those that certified have been read',
  );
}

/** What determines the result of a calibration, as JSON. */
function identityOf(
  { sha256, programs, options: { original, guards, choice, budget, about }, rules, further }: Task,
  data: Promised['data'],
  groups: readonly Group[],
  settings: readonly Setting[],
): unknown {
  const exitsOf = ({ exits = [] }: Setting) => exits.map(({ after, threshold }) => [after, threshold]);
  return {
    ...{
      sha256,
      precision: programs.main.precision,
      original: original?.sha256,
      fronts: choice?.fronts,
      guards,
      budget,
      about,
      rules,
      ...(further.length > 0 && { further }),
      data,
    },
    groups: groups.map(({ kind, name, members }) => [kind, name, members.length]),
    settings: settings.map((setting) => [exitsOf(setting), [...setting.omitted]]),
  };
}

/** Counts in the user's file. */
export function counting(work: Work): CountUse {
  return async (calibration, certifiedOn) => {
    try {
      return await recordUse(calibration, certifiedOn);
    } catch (error) {
      work.note(`how often these images have certified isn't counted: ${(error as Error).message}`);
      return undefined;
    }
  };
}

/** The calibration with a picture in each example whose image can be read again. */
export async function withThumbnails(
  result: Calibration,
  items: ReadonlyMap<string, Item<Tensor>>,
): Promise<Calibration> {
  const drawn = async (example: Example): Promise<Example> => {
    try {
      const image = await items.get(example.sha256)?.load?.();
      return image ? { ...example, thumbnail: await encodeThumbnail(image) } : example;
    } catch {
      // sharp or the file may be missing by now; the result is valid without pictures.
      return example;
    }
  };
  const { most, least } = result.examples;
  const examples = {
    most: await Promise.all(most.map(drawn)),
    least: await Promise.all(least.map(drawn)),
  };
  return { ...result, examples };
}
