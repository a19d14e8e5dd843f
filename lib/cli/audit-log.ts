import type { AuditProblem } from '../audit/read.js';
import type { Io } from './io.js';
import { plural } from './table.js';

/** Says on the error stream what is wrong with a log: the first line, and how many more there are. */
export function noteProblems(path: string, problems: readonly AuditProblem[], io: Io): void {
  if (problems.length === 0) return;
  const more = problems.length > 1 ? `; and ${plural(problems.length - 1, 'problem')} more` : '';
  io.err(`note: ${path}: ${problems[0]!.message}${more}\n`);
}
