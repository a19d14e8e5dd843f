import type { Command } from 'commander';
import type { TaskOptions } from '../classify/task.js';
import { Unusable } from '../classify/unusable.js';
import { isArrayFile } from '../data/arrays.js';
import { findModel } from '../data/model-files.js';
import { isTextFile } from '../data/texts.js';
import type { EnergyReport } from '../measure/energy.js';
import { type EvaluatedRung, type Evaluation, evaluate } from '../measure/evaluate.js';
import type { LatencySummary } from '../measure/statistics.js';
import { wordPolicy } from './classifier.js';
import { type Io, paint, watchWork } from './io.js';
import {
  addDataOptions,
  type EngineOptions,
  positiveInteger,
  type ReadingOptions,
  taskOption,
} from './options.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural } from './table.js';

interface EvalOptions extends EngineOptions, ReadingOptions, TaskOptions {
  readonly data: string;
  readonly limit?: number;
  readonly labels?: string | false;
  readonly json?: boolean;
}

export function addEvalCommand(program: Command, io: Io): void {
  addDataOptions(
    program
      .command('eval')
      .description(
        'measure accuracy, latency and skipped work on images or texts, compared with running every block; accuracy needs labels',
      )
      .argument('<model>', 'ONNX file, or a folder with one')
      .requiredOption(
        '--data <dir>',
        "images: a folder with images, with a folder for each class, with IDX files, or with CIFAR-10's binary batches; texts: a file (.jsonl, .ndjson, .csv, .tsv); " +
          'other inputs: .npz, .npy, .raw or .wav',
      )
      .option('--labels <file>', 'CSV or JSON file with the label of each image')
      .option('--no-labels', 'ignore labels, whatever the folders are called')
      .addOption(taskOption())
      .option('--limit <n>', 'items to use, spread evenly over the data', positiveInteger),
  ).action((model: string, options: EvalOptions) => run(model, options, io));
}

async function run(model: string, options: EvalOptions, io: Io): Promise<void> {
  const { data, labels, json, ...asked } = options;
  const work = watchWork(io, json !== true);
  const labelsFrom = labels === false ? 'none' : labels;
  const evaluated = evaluate(model, data, { ...asked, ...work.options, labelsFrom, energy: true });
  const { unusable, ...report } = await evaluated.finally(work.stop);
  const { name } = await findModel(model);
  io.out(
    json
      ? `${JSON.stringify(report, null, 2)}\n`
      : draw(`${paint(io, 'bold', name)} on ${data}`, report, options, io),
  );
  new Unusable([...unusable]).check();
}

function energyRow({ joules, cpuSeconds }: EnergyReport): string[] {
  const [title, { full, skip }] = joules
    ? (['energy of the processor, mJ', joules] as const)
    : (['CPU time, ms', cpuSeconds] as const);
  return [title, milliseconds(1000 * full), milliseconds(1000 * skip), ''];
}

function draw(
  what: string,
  report: Omit<Evaluation, 'unusable'>,
  { data, backend = 'native' }: EvalOptions,
  io: Io,
): string {
  const columns = [{ title: '' }, ...numbers('full', 'skip'), { title: '' }];
  const items = plural(report.items, isTextFile(data) ? 'text' : isArrayFile(data) ? 'item' : 'image');
  const rows = [...answerRows(report), ...costRows(report, io)];
  const rungs =
    report.rungs.length === 0 ? '' : `\n${formatTable(io, RUNG_COLUMNS, report.rungs.map(rungRow))}`;
  return `${what}: ${items}, ${backend} backend, one at a time\n${wordPolicy(report.policy)}\n\n${formatTable(io, columns, rows)}${rungs}`;
}

/** How the answers differ. */
function answerRows({ full, skip, accuracyChange }: Omit<Evaluation, 'unusable'>): string[][] {
  const rows: string[][] = [];
  const signed = (points: number) => `${points < 0 ? '-' : '+'}${Math.abs(points).toFixed(2)}`;
  if (accuracyChange) {
    const { points, ci95 } = accuracyChange;
    const change = `${signed(points)} points (95 % interval ${ci95.map(signed).join(' to ')})`;
    rows.push(['accuracy', percent(full.accuracy!, 2), percent(skip.accuracy!, 2), change]);
  }
  if (skip.agreement !== null) rows.push(['agreement', '', percent(skip.agreement, 2), '']);
  if (skip.distance) {
    const { cosine, relative } = skip.distance;
    if (cosine !== null) rows.push(['cosine distance', '', cosine.toPrecision(3), '']);
    rows.push(['relative error', '', percent(relative, 2), '']);
  }
  for (const { metric, mean, limit } of skip.loss ? [skip.loss, ...(skip.loss.also ?? [])] : [])
    rows.push([`promised loss (${metric})`, '', percent(mean, 2), `limit ${percent(limit, 2)}`]);
  return rows;
}

/** What the answers take. */
function costRows(
  { full, skip, latencyReduction, energy }: Omit<Evaluation, 'unusable'>,
  io: Io,
): string[][] {
  const latency = (key: keyof LatencySummary, title: string, note = '') => [
    title,
    milliseconds(full.latencyMs[key]),
    milliseconds(skip.latencyMs[key]),
    note,
  ];
  const saved = `${percent(Math.abs(latencyReduction))} ${latencyReduction < 0 ? 'more' : 'less'} with skipping`;
  return [
    latency('mean', 'latency, mean, ms'),
    latency('p50', '  median', paint(io, 'bold', saved)),
    latency('p95', '  95th percentile'),
    energyRow(energy!),
    ['blocks skipped', '', percent(skip.blocksSkipped), ''],
    ['layers skipped', '', percent(skip.layersSkipped), ''],
    ['multiply-adds skipped', '', percent(skip.multiplyAddsSkipped), ''],
  ];
}

const RUNG_COLUMNS: readonly Column[] = [
  { title: 'answered by' },
  ...numbers('items', 'agreement', 'accuracy', 'work', 'mean, ms'),
];

function rungRow({ name, answered, agreement, accuracy, work, meanMs }: EvaluatedRung): string[] {
  const share = (value: number | null, digits: number) => (value === null ? '' : percent(value, digits));
  return [
    name ?? 'the network',
    percent(answered),
    share(agreement, 2),
    share(accuracy, 2),
    share(work, 0),
    meanMs === null ? '' : milliseconds(meanMs),
  ];
}
