/** The table of `run`: what each item was answered, which blocks it skipped, and the time that took. */
import type { Prediction } from '../classify/class-scores.js';
import type { TimedClassifier } from '../measure/timed-classifier.js';
import { mean } from '../numeric/statistics.js';
import { isOfNumbers, type Promised } from '../skip/promise.js';
import { wordPolicy } from './classifier.js';
import { type Io, paint } from './io.js';
import { patternLegend } from './pattern.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural } from './table.js';
import { type VisionAnswer, wordVision } from './vision.js';

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
  /** What the network answers, if that is one number, or its policy promises a few. */
  readonly numbers?: readonly number[];
  readonly blocks: { total: number; skippable: number; skipped: number; pattern: string };
  /** The block or front whose exit answered; null for the network. */
  readonly answeredBy: string | null;
  /** Medians of alternating runs: with the policy, and with every block run. */
  readonly milliseconds: { skip: number; full: number };
}

/** A result, and what only the table needs. */
export interface Row {
  readonly result: RunResult;
  /** The path as the table shows it: below the folder argument, if it was found in one. */
  readonly shown: string;
  readonly drawn: string;
  /** Whether it came to an exit. */
  readonly cameToExit: boolean;
}

/** Whether a network has no classes, or its policy promises numbers. */
export function answersVector({ model, session: { policy } }: TimedClassifier): boolean {
  return model.labels === null || (policy.promise !== null && isOfNumbers(policy.promise.metric));
}

/** @param full every block ran, and nothing is compared */
export function drawRuns(classifier: TimedClassifier, rows: readonly Row[], full: boolean, io: Io): string {
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
    `${summary(rows, classifier, full, io)}\n`,
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

function summary(
  rows: readonly Row[],
  { model: { what }, hasOriginal }: TimedClassifier,
  full: boolean,
  io: Io,
): string {
  const meanOf = (value: (result: RunResult) => number) => mean(rows.map(({ result }) => value(result)));
  const fullTime = meanOf((result) => result.milliseconds.full);
  const items = plural(rows.length, what);
  const skipped = meanOf(({ blocks }) => blocks.skipped);
  if (full) return `${items}, every block run: ${milliseconds(fullTime)} ms each`;
  const skipTime = meanOf((result) => result.milliseconds.skip);
  const leftEarly = rows.some(({ result }) => result.answeredBy !== null);
  if (skipped === 0 && !leftEarly && !hasOriginal)
    return `${items}: no block skipped, ${milliseconds(skipTime)} ms each`;
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
