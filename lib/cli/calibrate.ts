import { type Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { z } from 'zod';
import { calibrate } from '../calibrate/calibrate.js';
import { type CalibrateOptions, CONFLICTS, limitsByMetric, optionShape } from '../calibrate/options.js';
import { renderCalibration } from '../calibrate/report/report.js';
import type { Calibration } from '../calibrate/report/result.js';
import { forgetState } from '../calibrate/run/resume.js';
import { findModel } from '../data/model-files.js';
import { loadVega } from '../report/charts.js';
import type { SkipPolicy } from '../skip/policy.js';
import { type Flag, flags } from '../util/flags.js';
import { expectation } from '../util/validation.js';
import { drawCalibration, drawEstimate } from './calibration-table.js';
import { checkWritable, writeResult } from './files.js';
import { type Io, watchWork } from './io.js';
import { addBackendOptions, addReadingOptions, fraction, taskOption } from './options.js';

interface CommandOptions extends Omit<CalibrateOptions, 'labels' | 'guards'> {
  readonly data: string;
  /** True for the labels of the data set itself; otherwise a file with the label of each image by name. */
  readonly labels?: true | string;
  readonly groups?: string;
  readonly output?: string;
  readonly guard?: readonly string[];
  readonly margin: number;
  readonly report?: string;
  readonly json?: boolean;
}

export function addCalibrateCommand(program: Command, io: Io): void {
  const command = program
    .command('calibrate')
    .description(
      'make a policy that skips, for any residual network, with a certified limit on changed answers',
    )
    .argument('<model>', 'ONNX file, or a folder with one')
    .requiredOption(
      '--data <path>',
      'images: any folder of them (labels are not needed), or what eval takes; or a file of texts',
    )
    .option('-o, --output <file>', 'policy file to write');
  for (const [name, schema] of Object.entries(optionShape)) {
    const flag = flags.get(schema);
    if (flag) command.addOption(optionOf(name, schema, flag));
  }
  command
    .addOption(taskOption())
    .option('--labels [file]', 'the data is labelled: by its folders, or by a CSV or JSON file')
    .option(
      '--groups <source>',
      "keep the limit for every group as well: 'folder', or a CSV or JSON file with a name for each image",
    )
    .option('--guard <label...>', 'answers that the full network verifies')
    .option('--margin <p>', 'verify also if the label is within this probability of the best', fraction, 0)
    .option('--report <file>', 'HTML page to write that shows what was tested and chosen');
  addReadingOptions(addBackendOptions(command)).action((model: string, options: CommandOptions) =>
    run(model, options, io),
  );
}

const NO_OUTPUT =
  "required option '-o, --output <file>' not specified; name the policy file to write, or give --dry-run";
const NOTHING_WRITTEN =
  'option --dry-run: nothing is written; give it without --output, --report and --state';

/** The command's form of an option of the schema. */
export function optionOf(name: string, schema: z.ZodType, { flag, description, read, hidden }: Flag): Option {
  const option = new Option(flag, description).hideHelp(hidden);
  option.argParser((text) => {
    const { error, data } = schema.safeParse(read(text), { error: expectation });
    if (!error) return data;
    const [{ message } = { message: '' }] = error.issues;
    throw new InvalidArgumentError(`${message[0]!.toUpperCase()}${message.slice(1)}.`);
  });
  const { data: byDefault } = schema.safeParse(undefined);
  if (byDefault !== undefined) option.default(byDefault);
  // The flag of `groupsFrom` is --groups.
  return option.conflicts((CONFLICTS[name] ?? []).map((other) => other.replace('groupsFrom', 'groups')));
}

async function run(path: string, options: CommandOptions, io: Io): Promise<void> {
  const { output, data, guard, margin, labels, groups, report, json, ...asked } = options;
  if (asked.dryRun ? (output ?? report ?? asked.state) !== undefined : output === undefined) {
    throw new CommanderError(2, 'calibrate', asked.dryRun ? NOTHING_WRITTEN : NO_OUTPUT);
  }
  for (const file of [output, report]) if (file !== undefined) await checkWritable(file);
  if (report !== undefined) await loadVega();
  const work = watchWork(io, json !== true);
  const state = options.state ?? (output === undefined ? undefined : `${output}.state`);
  const result = await calibrate(path, data, {
    ...asked,
    ...work.options,
    state,
    metric:
      options.metric ?? (labels === undefined || limitsByMetric(options.limits) ? undefined : 'accuracy'),
    labelsFrom: labels === true ? 'data' : labels,
    groupsFrom: groups,
    guards: guard?.length ? [{ labels: [...guard], margin }] : undefined,
  }).finally(work.stop);
  if (output === undefined) {
    io.out(json ? `${JSON.stringify(summary(result), null, 2)}\n` : drawEstimate(result, options, io));
    return;
  }
  await writeResult(output, `${JSON.stringify(result.policy, null, 2)}\n`);
  if (report !== undefined) {
    const { name } = await findModel(path);
    await writeResult(report, await renderCalibration(result, { model: name }));
  }
  if (options.state === undefined) await forgetState(state!);
  io.out(
    json
      ? `${JSON.stringify(summary(result), null, 2)}\n`
      : drawCalibration(result, { output, resumed: result.resumed!.taken }, io),
  );
}

function summary({ policy, examples: _, certifiedOn: __, bolder: ___, ...rest }: Calibration) {
  const told = ({ promise, expected }: SkipPolicy) => ({ promise, expected });
  const { settings } = policy;
  return { ...told(policy), ...(settings && { bolder: settings.map(told) }), ...rest };
}
