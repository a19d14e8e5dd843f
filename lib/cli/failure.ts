import { CommanderError } from 'commander';
import { type ErrorCode, ResidualSkipError } from '../errors.js';
import { RENAMED_FLAGS } from '../util/suggest.js';
import type { Io } from './io.js';

/** Exit codes: the command failed; the command line was wrong. */
const FAILED = 1;
const USAGE = 2;

/** Writes `error` to the error stream, as JSON if asked; returns the exit code. */
export function reportFailure(io: Io, error: unknown, json: boolean): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  const { code, message, exitCode } = describe(error);
  io.err(
    json ? `${JSON.stringify({ error: { code, message } })}\n` : `residual-skip: ${message} [${code}]\n`,
  );
  return exitCode;
}

function describe(error: unknown): { code: ErrorCode; message: string; exitCode: number } {
  if (error instanceof ResidualSkipError)
    return { code: error.code, message: error.message, exitCode: FAILED };
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: /, '').replace(/\n\(?/, ' (');
    const renamed = RENAMED_FLAGS.get(/^unknown option '--([^'=]+)/.exec(message)?.[1] ?? '');
    const hint = renamed === undefined ? '' : ` (It is called --${renamed} now.)`;
    return { code: 'INVALID_ARGUMENT', message: `${message}${hint}`, exitCode: USAGE };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: 'INTERNAL', message: `This is a defect, please report it: ${message}`, exitCode: FAILED };
}
