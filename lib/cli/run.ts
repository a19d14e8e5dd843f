import { relative } from 'node:path';
import { type Command, Option } from 'commander';
import type { WholeImage } from '../classify/image-classifier.js';
import { doubtOf } from '../classify/task.js';
import { textsOfArguments } from '../classify/texts.js';
import { kindOf, listImagesBelow } from '../data/files.js';
import type { DataLimits } from '../data/limits.js';
import { ResidualSkipError } from '../errors.js';
import type { TimedClassifier } from '../measure/timed-classifier.js';
import { median } from '../numeric/statistics.js';
import { cosineDistance } from '../numeric/vectors.js';
import type { BlockInfo } from '../skip/block-info.js';
import { type Promised, partsOf } from '../skip/promise.js';
import { answeredBy } from '../skip/trace.js';
import type { Tensor } from '../tensor/tensor.js';
import { openClassifier, openUnlabelled } from './classifier.js';
import { type Io, startProgress } from './io.js';
import { addDataOptions, type EngineOptions, positiveInteger, type ReadingOptions } from './options.js';
import { asciiPattern, drawPattern } from './pattern.js';
import { answersVector, drawRuns, type Row } from './run-table.js';
import { shortened } from './table.js';
import { type VisionAnswer, visionOf } from './vision.js';

interface RunOptions extends EngineOptions, ReadingOptions {
  readonly full?: boolean;
  readonly top?: number;
  readonly json?: boolean;
  readonly output?: string;
}

interface RunItem {
  /** The path of an image, a text itself, or the row of a file. */
  readonly path: string;
  readonly shown: string;
  prepare(): Promise<Tensor>;
  /** Of an image that is prepared. */
  whole?(): WholeImage | undefined;
}

/** Most timed runs of one image in each mode, and the time after which no further turn starts. */
const MAX_RUNS = 40;
const BUDGET_MS = 400;
/** Of runs in a turn: each mode follows itself as often as it follows the other, which finds the caches colder. */
const TURN = ['full', 'skip', 'skip', 'full'] as const;
const JSON_TOP = 5;
/** Most numbers of an answer that are shown. */
const MAX_NUMBERS = 8;

export function addRunCommand(program: Command, io: Io): void {
  addDataOptions(
    program
      .command('run')
      .description(
        'run images, texts, arrays or sounds; show which blocks each one skipped, and the time saved',
      )
      .argument('<model>', 'ONNX file, or a folder with one')
      .argument(
        '<images-or-texts...>',
        'image files, or folders of them; for networks of texts: texts, or files of them (.jsonl, .ndjson, .csv, .tsv); for others: .npz, .npy, .raw or .wav',
      )
      .addOption(new Option('--full', 'run every block; the same as --policy full').conflicts('policy'))
      .option(
        '-o, --output <folder>',
        'write the mask of each image there, as a PNG; for networks that give each pixel a class',
      )
      .option('--top <k>', `classes to show (default: 1, with --json ${JSON_TOP})`, positiveInteger),
  ).action((model: string, images: string[], options: RunOptions) => run(model, images, options, io));
}

async function run(model: string, given: readonly string[], options: RunOptions, io: Io): Promise<void> {
  const policy = options.full ? 'full' : options.policy;
  const classifier = await openClassifier(model, { ...options, policy, data: given[0] }, io);
  try {
    if (options.original) await classifier.compareWith(options.original, options);
    if (classifier.originalNote) io.err(`note: ${classifier.originalNote}\n`);
    const vision = visionOf(classifier.model, options.output);
    const items = await itemsOf(classifier, given, options, vision !== undefined);
    const progress = startProgress(io, items.length, 'Running', options.json !== true);
    const rows: Row[] = [];
    try {
      for await (const { item, tensor } of classifier.prepare(items)) {
        if (rows.length === 0) classifier.warmUp(tensor);
        const whole = item.whole?.();
        const seen = vision && whole && (await vision(whole, item.path));
        rows.push(measure(classifier, item, tensor, options, io, seen));
        progress.advance();
      }
    } finally {
      progress.stop();
    }
    classifier.unusable.checkSome(rows.length);
    const { model: answers, session } = classifier;
    const doubt = doubtOf(answers, session.context.classScores, false);
    if (doubt && !answersVector(classifier) && !vision && rows.length > 0)
      io.err(`note: what is shown as classes may be something else: ${doubt.reason}\n`);
    if (options.json)
      io.out(
        `${JSON.stringify(
          rows.map(({ result }) => result),
          null,
          2,
        )}\n`,
      );
    else io.out(drawRuns(classifier, rows, policy === 'full' && !classifier.hasOriginal, io));
    classifier.unusable.check();
  } finally {
    await classifier.release();
  }
}

async function itemsOf(
  classifier: TimedClassifier,
  given: readonly string[],
  limits: DataLimits,
  wholly: boolean,
): Promise<readonly RunItem[]> {
  const { images, reader } = classifier.model;
  const { maxBytes } = limits;
  if (reader) {
    const texts = await textsOfArguments(given, reader, { maxBytes });
    return texts.map(({ name, prepare }) => ({ path: name, shown: shortened(name), prepare }));
  }
  const items: RunItem[] = [];
  if (!images) {
    for (const path of given) {
      for (const item of await openUnlabelled(classifier, path, limits)) {
        items.push({ path: item.name, shown: item.name, prepare: () => item.prepare() });
      }
    }
    return items;
  }
  const add = (path: string, shown: string) => {
    let whole: WholeImage | undefined;
    const prepare = async () => {
      if (!wholly) return images.prepare(path);
      whole = await images.prepareWhole(path, path);
      return whole.tensor;
    };
    items.push({ path, shown, prepare, whole: () => whole });
  };
  for (const path of given) {
    if ((await kindOf(path)) !== 'folder') {
      add(path, path);
      continue;
    }
    const below = await listImagesBelow(path);
    if (below.length === 0) throw new ResidualSkipError('INVALID_DATA', `folder ${path}: it holds no image`);
    for (const file of below) add(file, relative(path, file));
  }
  return items;
}

function measure(
  classifier: TimedClassifier,
  item: RunItem,
  tensor: Tensor,
  options: RunOptions,
  io: Io,
  seen: VisionAnswer | undefined,
): Row {
  // These two runs also warm the caches, so that the steady state is timed.
  const { scores, trace } = classifier.classify(tensor);
  const full = classifier.time(tensor, 'full').scores;
  const times = { skip: [] as number[], full: [] as number[] };
  const start = performance.now();
  do {
    for (const mode of TURN) times[mode].push(classifier.time(tensor, mode).milliseconds);
  } while (times.full.length < MAX_RUNS && performance.now() - start < BUDGET_MS);
  const { blocks } = classifier;
  const { source, promise } = classifier.session.policy;
  const isVector = answersVector(classifier);
  const result = {
    input: item.path,
    policy: source,
    promise: promise && { metric: promise.metric, limit: promise.limit, confidence: promise.confidence },
    top: seen || isVector ? [] : classifier.predict(scores, options.top ?? (options.json ? JSON_TOP : 1)),
    ...(seen ?? (isVector && { cosineDistance: cosineDistance(scores, full) })),
    ...(isVector && areFew(scores, promise) && { numbers: [...scores] }),
    blocks: {
      total: blocks.length,
      skippable: blocks.filter(({ skippable }) => skippable).length,
      skipped: trace.blocks.filter(({ ran }) => !ran).length,
      pattern: asciiPattern(trace),
    },
    answeredBy: answeredBy(trace),
    milliseconds: { skip: median(times.skip), full: median(times.full) },
  };
  const drawn = drawPattern(io, trace, stagesOf(blocks));
  return { result, shown: item.shown, drawn, cameToExit: trace.exits.length > 0 };
}

/** Whether an answer is one number, or several that mean something by themselves, and not too many of them. */
function areFew({ length }: Float32Array, promise: Promised | null): boolean {
  if (length === 1) return true;
  const names = ['relative', 'absolute', 'excess'];
  return length <= MAX_NUMBERS && promise !== null && names.includes(partsOf(promise.metric).name);
}

/** Indices of the blocks that begin a stage: their shortcut isn't the identity. */
function stagesOf(blocks: readonly BlockInfo[]): ReadonlySet<number> {
  return new Set(blocks.filter(({ shortcut }) => shortcut !== 'identity').map(({ index }) => index));
}
