import type { Command } from 'commander';
import { titleOfEvents, wordPromise } from '../calibrate/report/wording.js';
import { forgetState } from '../calibrate/run/resume.js';
import { findModel } from '../data/model-files.js';
import { loadVega } from '../report/charts.js';
import { checkFolder, writeLadder } from '../speedup/folder.js';
import { type SpeedupOptions, speedupShape } from '../speedup/options.js';
import { renderSpeedup, wordNothing, wordOutcome } from '../speedup/report.js';
import { type Speedup, speedup } from '../speedup/speedup.js';
import type { LadderRung, Tried } from '../speedup/tried.js';
import { flags } from '../util/flags.js';
import { optionOf } from './calibrate.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, paint, watchWork } from './io.js';
import { addBackendOptions, addReadingOptions, taskOption } from './options.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural } from './table.js';

interface CommandOptions extends Omit<SpeedupOptions, 'labels'> {
  readonly data: string;
  /** True for the labels of the data set itself; otherwise a file with the label of each image by name. */
  readonly labels?: true | string;
  readonly output: string;
  readonly report?: string;
  readonly json?: boolean;
  readonly backend?: 'native' | 'reference';
}

export function addSpeedupCommand(program: Command, io: Io): void {
  const command = program
    .command('speedup')
    .description(
      'make a network faster on this machine, by 8 bits, exits, lower resolutions and small networks in front; with one certified limit',
    )
    .argument('<model>', 'ONNX file, or a folder with one')
    .requiredOption(
      '--data <path>',
      'images without labels, of which a part chooses and the rest certifies; or a file of texts',
    )
    .requiredOption('-o, --output <dir>', 'folder to write: the networks and their policy');
  for (const [name, schema] of Object.entries(speedupShape)) {
    const flag = flags.get(schema);
    if (!flag) continue;
    // Commander collects the values of a list, and turns --no-int8 into int8.
    if (name === 'front' || flag.flag.startsWith('--no-')) command.option(flag.flag, flag.description);
    else command.addOption(optionOf(name, schema, flag));
  }
  command
    .addOption(taskOption())
    .option('--labels [file]', 'the data is labelled: by its folders, or by a CSV or JSON file')
    .option('--report <file>', 'HTML page to write that shows what was tested and chosen');
  addReadingOptions(addBackendOptions(command)).action((model: string, options: CommandOptions) =>
    run(model, options, io),
  );
}

async function run(path: string, options: CommandOptions, io: Io): Promise<void> {
  const { output, data, labels, report, json, backend: _, ...asked } = options;
  await checkFolder(output);
  if (report !== undefined) await checkWritable(report);
  if (report !== undefined) await loadVega();
  const work = watchWork(io, json !== true);
  const state = options.state ?? `${output}.state`;
  const metric = options.metric ?? (labels === undefined ? undefined : 'accuracy');
  const result = await speedup(path, data, {
    ...asked,
    ...work.options,
    state,
    metric,
    labelsFrom: labels === true ? 'data' : labels,
  }).finally(work.stop);
  if (result.calibration) await writeLadder(result, path, output);
  if (report !== undefined) {
    const { name } = await findModel(path);
    await writeResult(report, await renderSpeedup(result, { model: name }));
  }
  if (options.state === undefined) await forgetState(state);
  io.out(json ? `${JSON.stringify(summary(result, output), null, 2)}\n` : draw(result, output, metric, io));
}

function summary({ calibration, rungs, parts, tried, minutes }: Speedup, folder: string) {
  const { promise, expected, fronts = [] } = calibration?.policy ?? {};
  const ladders = tried.map(({ points: _, ...one }) => one);
  return { folder: calibration && folder, promise, expected, fronts, rungs, parts, tried: ladders, minutes };
}

const columnsOf = (loss: string): readonly Column[] => [
  { title: 'tried' },
  ...numbers('exits', loss, 'work', 'mean time', 'p95', 'measured'),
  { title: '' },
];
const rungColumnsOf = (loss: string): readonly Column[] => [
  { title: 'rung' },
  ...numbers('answered', loss, 'work', 'time'),
];
const SHOWN = 10;

function draw(result: Speedup, output: string, metric: string | undefined, io: Io): string {
  const { calibration, rungs, tried, minutes } = result;
  const loss = titleOfEvents(metric);
  const row = ({ exits, risk, work, mean, p95, measured, outcome, ...one }: Tried) => [
    one.rungs.join(' > '),
    String(exits),
    percent(risk, 2),
    percent(work, 0),
    percent(mean, 0),
    percent(p95, 0),
    measured === undefined ? '' : percent(measured, 0),
    wordOutcome[outcome],
  ];
  const table =
    tried.length === 0 ? '' : `${formatTable(io, columnsOf(loss), tried.slice(0, SHOWN).map(row))}\n`;
  const answering = rungs.length === 0 ? '' : `${formatTable(io, rungColumnsOf(loss), rungs.map(rungRow))}\n`;
  return (
    `${table}${paint(io, 'bold', verdict(result))}\n${answering}` +
    `${calibration ? `folder: ${output}\n` : ''}${minutes.toFixed(1)} minutes\n`
  );
}

function rungRow({ name, answered, events, work, time }: LadderRung): string[] {
  return [name, percent(answered), String(events), percent(work, 0), percent(time, 0)];
}

function verdict(result: Speedup): string {
  const { calibration } = result;
  if (!calibration) return `Nothing to write: ${wordNothing(result)}.`;
  const { promise, expected } = calibration.policy;
  const { latency } = expected!;
  if (!latency)
    return `No setting keeps the limit of ${percent(promise!.limit, 2)}: the policy skips nothing.`;
  const { fullMs, policyMs, isa, threads } = latency;
  const both = (ms: { mean: number; p50: number; p95?: number | undefined }) =>
    `mean ${milliseconds(ms.mean)} ms, median ${milliseconds(ms.p50)}, p95 ${milliseconds(ms.p95 ?? ms.mean)}`;
  return (
    `Certified on ${plural(promise!.items, 'item')}: ${wordPromise(promise!)}.\n` +
    `${both(policyMs)}; the network as given ${both(fullMs)}: ${percent(1 - policyMs.mean / fullMs.mean)} of the mean saved ` +
    `(${isa}, ${plural(threads, 'thread')}).`
  );
}
