import { type Command, InvalidArgumentError, Option } from 'commander';
import { ISAS, type Isa } from '../options.js';

/** Options that say how a model is run; the names are those of SessionOptions. */
export interface EngineOptions {
  readonly policy?: string;
  readonly backend?: 'native' | 'reference';
  readonly isa?: Isa;
  readonly threads?: number;
}

/** A whole number above 0, for commander. */
export function positiveInteger(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be a whole number above 0.');
}

/** Adds the options that `run` and `eval` share. */
export function addEngineOptions(command: Command): Command {
  return command
    .option(
      '--policy <policy>',
      "'model' (its own gates decide), 'full' (run everything) or a policy file",
      'model',
    )
    .addOption(
      new Option('--backend <name>', 'where to run').choices(['native', 'reference']).default('native'),
    )
    .addOption(
      new Option('--isa <name>', 'most capable instruction set to use (default: the best here)').choices(
        ISAS,
      ),
    )
    .option('--threads <n>', 'worker threads (default: what the process may use)', positiveInteger)
    .option('--json', 'print JSON');
}
