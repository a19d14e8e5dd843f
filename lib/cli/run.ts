import { relative } from 'node:path';
import { type Command, Option } from 'commander';
import type { Prediction } from '../classify/class-scores.js';
import type { WholeImage } from '../classify/image-classifier.js';
import { doubtOf } from '../classify/task.js';
import { textsOfArguments } from '../classify/texts.js';
import { kindOf, listImagesBelow } from '../data/files.js';
import type { DataLimits } from '../data/limits.js';
import { ResidualSkipError } from '../errors.js';
import type { TimedClassifier } from '../measure/timed-classifier.js';
import { mean, median } from '../numeric/statistics.js';
import { cosineDistance } from '../numeric/vectors.js';
import type { BlockInfo } from '../skip/block-info.js';
import { isOfNumbers, type Promised, partsOf } from '../skip/promise.js';
import { answeredBy } from '../skip/trace.js';
import type { Tensor } from '../tensor/tensor.js';
import { openClassifier, openUnlabelled, wordPolicy } from './classifier.js';
import { type Io, paint, startProgress } from './io.js';
import { addDataOptions, type EngineOptions, positiveInteger, type ReadingOptions } from './options.js';
import { asciiPattern, drawPattern, patternLegend } from './pattern.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural, shortened } from './table.js';
import { type VisionAnswer, visionOf, wordVision } from './vision.js';

interface RunOptions extends EngineOptions, ReadingOptions {
  readonly full?: boolean;
  readonly top?: number;
  readonly json?: boolean;
  readonly output?: string;
}

/** One image or text of `run --json`. */
export interface RunResult extends VisionAnswer {
  readonly input: string;
  /** `model`, `full` or the path of the policy that ran. */
  readonly policy: string | null;
  /** What it promises: a limit on a metric; null for nothing. */
  readonly promise: Pick<Promised, 'metric' | 'limit' | 'confidence'> | null;
  readonly top: readonly Prediction[];
  /** Of the vector from that of the full network; for a network without classes, objects or maps, which has no `top`. */
  readonly cosineDistance?: number;
  /** What the network answers, if its policy promises a few numbers. */
  readonly numbers?: readonly number[];
  readonly blocks: { total: number; skippable: number; skipped: number; pattern: string };
  /** The block or front whose exit answered; null for the network. */
  readonly answeredBy: string | null;
  /** Medians of alternating runs: with the policy, and with every block run. */
  readonly milliseconds: { skip: number; full: number };
}

/** A result, and what only the table needs. */
interface Row {
  readonly result: RunResult;
  /** The path as the table shows it: below the folder argument, if it was found in one. */
  readonly shown: string;
  readonly drawn: string;
  /** Whether it came to an exit. */
  readonly cameToExit: boolean;
}

interface RunItem {
  /** The path of an image, a text itself, or the row of a file. */
  readonly path: string;
  readonly shown: string;
  prepare(): Promise<Tensor>;
  /** Of an image that is prepared. */
  whole?(): WholeImage | undefined;
}

/** Most turns of timed runs for one image, and the time after which no further turn starts. */
const MAX_TURNS = 20;
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
        'image files, or folders of them; for networks of texts: texts, or files of them (.jsonl, .csv, .tsv); for others: .npz, .npy, .raw or .wav',
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
    if (classifier.lacksOriginal) io.err(`note: ${classifier.lacksOriginal}\n`);
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
    else io.out(draw(classifier, rows, policy === 'full', io));
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
  for (let turn = 0; turn < MAX_TURNS && (turn === 0 || performance.now() - start < BUDGET_MS); turn++) {
    for (const mode of TURN) times[mode].push(classifier.time(tensor, mode).milliseconds);
  }
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

/** Whether a network has no classes, or its policy promises numbers. */
function answersVector({ model, session: { policy } }: TimedClassifier): boolean {
  return model.labels === null || (policy.promise !== null && isOfNumbers(policy.promise.metric));
}

/** Whether an answer is numbers that mean something by themselves, and not too many of them. */
function areFew({ length }: Float32Array, promise: Promised | null): boolean {
  const names = ['relative', 'absolute', 'excess'];
  return length <= MAX_NUMBERS && promise !== null && names.includes(partsOf(promise.metric).name);
}

/** Indices of the blocks that begin a stage: their shortcut isn't the identity. */
function stagesOf(blocks: readonly BlockInfo[]): ReadonlySet<number> {
  return new Set(blocks.filter(({ shortcut }) => shortcut !== 'identity').map(({ index }) => index));
}

function draw(classifier: TimedClassifier, rows: readonly Row[], full: boolean, io: Io): string {
  const { blocks, backend, name } = classifier;
  const gates = blocks.filter(({ gate }) => gate !== null).length;
  const gated = gates > 0 ? `, ${gates} with a gate` : '';
  const heading = `${paint(io, 'bold', name)}: ${plural(blocks.length, 'block')}${gated}; ${backend} backend`;
  const timeColumns = full ? numbers('ms') : numbers('skipped', 'ms full', 'ms skip', 'saved');
  const { what } = classifier.model;
  const seen = rows[0]?.result;
  const answer = seen?.objects
    ? 'objects'
    : seen?.classes
      ? 'classes'
      : seen?.numbers
        ? 'numbers'
        : answersVector(classifier)
          ? 'cosine distance'
          : 'class';
  // The pattern shows an exit behind a block, but not which front answered.
  const names = new Set(blocks.map((block) => block.name));
  const withFronts = rows.some(({ result: { answeredBy: by } }) => by !== null && !names.has(by));
  const columns: Column[] = [
    ...[{ title: what }, { title: answer }, { title: 'blocks' }],
    ...(withFronts ? [{ title: 'answered by' }] : []),
    ...timeColumns,
  ];
  const cells = rows.map(({ result, shown, drawn }) => {
    const classes = result.top.map(({ label, probability }) => `${label} ${percent(probability)}`).join(', ');
    const found = result.objects || result.classes ? wordVision(result) : classes;
    const said =
      result.numbers?.map((number) => number.toPrecision(4)).join(', ') ??
      result.cosineDistance?.toPrecision(3) ??
      found;
    const by = withFronts ? [result.answeredBy ?? 'the network'] : [];
    return [
      shown,
      said,
      drawn,
      ...by,
      ...(full ? [milliseconds(result.milliseconds.full)] : savings(result)),
    ];
  });
  const idle =
    classifier.session.policy.source === 'model' &&
    gates === 0 &&
    rows.every(({ result, cameToExit }) => result.blocks.skipped === 0 && !cameToExit);
  return [
    `${heading}\n${wordPolicy(classifier.session.policy)}\n\n${formatTable(io, columns, cells)}\n`,
    full ? '' : `${patternLegend(io, gates > 0)}\n`,
    `${summary(rows, what, full, io)}\n`,
    idle ? 'The network has no gates of its own; residual-skip calibrate makes a policy that skips.\n' : '',
  ].join('');
}

function savings({ blocks, milliseconds: { skip, full } }: RunResult): string[] {
  return [
    `${blocks.skipped} of ${blocks.total}`,
    milliseconds(full),
    milliseconds(skip),
    percent(1 - skip / full, 0),
  ];
}

function summary(rows: readonly Row[], what: string, full: boolean, io: Io): string {
  const meanOf = (value: (result: RunResult) => number) => mean(rows.map(({ result }) => value(result)));
  const fullTime = meanOf((result) => result.milliseconds.full);
  const items = plural(rows.length, what);
  const skipped = meanOf(({ blocks }) => blocks.skipped);
  if (full) return `${items}, every block run: ${milliseconds(fullTime)} ms each`;
  const skipTime = meanOf((result) => result.milliseconds.skip);
  if (skipped === 0) return `${items}: no block skipped, ${milliseconds(skipTime)} ms each`;
  const saving = 1 - skipTime / fullTime;
  const saved = paint(
    io,
    'bold',
    saving < 0 ? `${percent(-saving, 0)} slower` : `${percent(saving, 0)} of the time saved`,
  );
  const { total } = rows[0]!.result.blocks;
  const blocks =
    rows.length === 1
      ? `${skipped} of ${total} blocks skipped`
      : `${skipped.toFixed(1)} of ${total} blocks skipped on average`;
  return `${items}: ${blocks}, ${milliseconds(skipTime)} ms instead of ${milliseconds(fullTime)} ms: ${saved}`;
}
