import { type Command, InvalidArgumentError, Option } from 'commander';
import { TASKS } from '../classify/task.js';
import { type DataLimits, MAX_BYTES, MAX_PIXELS } from '../data/limits.js';
import type { PreprocessorConfig } from '../data/preprocessor-config.js';
import { PRESETS, type PreprocessorPreset } from '../data/presets.js';
import { PRECISIONS, type Precision } from '../model/program/program.js';
import { ISAS, type Isa } from '../session/options.js';

/** Options for where a model runs, named as in SessionOptions. */
export interface BackendOptions {
  readonly backend?: 'native' | 'reference';
  readonly isa?: Isa;
  readonly threads?: number;
}

/** Of SessionOptions. */
export function precisionOption(byDefault = 'that of the policy, or else float32'): Option {
  return new Option(
    '--precision <name>',
    `number format of the factors in convolutions and matrix products (default: ${byDefault})`,
  ).choices(PRECISIONS);
}

export interface EngineOptions extends BackendOptions {
  readonly policy?: string;
  readonly original?: string;
  readonly precision?: Precision;
}

/** How a command reads its data. */
export interface ReadingOptions extends DataLimits {
  readonly preprocessor?: PreprocessorConfig | undefined;
}

/** A number strictly between 0 and 1, for commander. */
export function fraction(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value < 1) return value;
  throw new InvalidArgumentError('It must be a number between 0 and 1.');
}

/** A whole number above 0, for commander. */
export function positiveInteger(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be a whole number above 0.');
}

/** Adds the options of BackendOptions, and `--json`. */
export function addBackendOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--backend <name>', 'where to run').choices(['native', 'reference']).default('native'),
    )
    .addOption(
      new Option('--isa <name>', 'best instruction set to use (default: the best of this machine)').choices(
        ISAS,
      ),
    )
    .option(
      '--threads <n>',
      'worker threads (default: as many cores as the process may use)',
      positiveInteger,
    )
    .option('--json', 'print JSON');
}

/** Of the option `--policy`. */
export const policyHelp = (byDefault = "policy.json if MODEL is a folder that has one, otherwise 'model'") =>
  `a policy file, 'full' (run every block) or 'model' (the model's own gates and exits decide) (default: ${byDefault})`;

/** Adds the options of commands that run a model with a policy; `log` for one that takes its defaults from an audit log. */
export function addEngineOptions(command: Command, from?: 'log'): Command {
  const byDefault = from && 'that of the log';
  return addBackendOptions(
    command
      .option('--policy <policy>', policyHelp(byDefault))
      .option(
        '--original <model>',
        'network whose answers are promised, such as the float form of an 8-bit model: guards verify with it, and answers and times are compared with its own',
      )
      .addOption(precisionOption(byDefault)),
  );
}

/** Adds the options of commands that run a model on images or texts. */
export function addDataOptions(command: Command, from?: 'log'): Command {
  return addReadingOptions(addEngineOptions(command, from));
}

/** Several flags that fill one option, `preprocessor`: each changes a field of a preset. */
class PreprocessorOption extends Option {
  constructor(flags: string, description: string, parse: (text: string) => PreprocessorConfig) {
    super(flags, description);
    this.argParser((text, before: PreprocessorConfig = { preset: 'unit' }) => ({
      ...before,
      ...parse(text),
    }));
  }

  override attributeName(): string {
    return 'preprocessor';
  }
}

/** A value for all channels, or one for each, for commander. */
function perChannel(text: string): number[] {
  const values = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (values.every(Number.isFinite)) return values;
  throw new InvalidArgumentError('It must be a number, or one for each channel: 0.485,0.456,0.406.');
}

function preset(text: string): PreprocessorPreset {
  const found = PRESETS.find((name) => name === text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`Allowed choices are ${PRESETS.join(', ')}.`);
}

/** Adds the options of ReadingOptions. */
export function addReadingOptions(command: Command): Command {
  return command
    .addOption(
      new PreprocessorOption(
        '--preprocessor <preset>',
        `how pixels are prepared, instead of preprocessor_config.json: ${PRESETS.join(', ')}`,
        (text) => ({ preset: preset(text) }),
      ),
    )
    .addOption(
      new PreprocessorOption(
        '--mean <numbers>',
        'mean that is subtracted from pixels, on the scale of the preset',
        (text) => ({
          image_mean: perChannel(text),
        }),
      ),
    )
    .addOption(
      new PreprocessorOption('--std <numbers>', 'standard deviation that pixels are divided by', (text) => ({
        image_std: perChannel(text),
      })),
    )
    .addOption(
      new PreprocessorOption(
        '--size <n>',
        "side to which images are resized, as a square (default: the model's)",
        (text) => ({
          size: positiveInteger(text),
        }),
      ),
    )
    .option('--max-pixels <n>', 'refuse images with more pixels', positiveInteger, MAX_PIXELS)
    .option(
      '--max-bytes <n>',
      'refuse files of many images that are larger when unpacked',
      positiveInteger,
      MAX_BYTES,
    );
}

/** The option of TaskOptions. */
export function taskOption(): Option {
  return new Option(
    '--task <task>',
    "what the answers are, if neither the network nor the files beside it say so; single-label: an item's class is that of its largest score",
  ).choices(TASKS);
}
