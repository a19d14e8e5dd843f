import type { z } from 'zod';
import { type ErrorCode, ResidualSkipError } from './errors.js';
import { suggest } from './suggest.js';

type Issue = z.core.$ZodIssue;

function at(subject: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => `${text}.${String(key)}`, subject);
}

function explain(subject: string, issue: Issue, known: readonly string[]): string {
  const place = at(subject, issue.path);
  if (issue.code !== 'unrecognized_keys') return `${place}: ${issue.message}`;
  return issue.keys.map((key) => `${place}: unknown key '${key}'; ${suggest(key, known)}`).join('; ');
}

/**
 * `value` parsed by a strict schema; all that is wrong in one message.
 * @param subject what the value is, for messages
 * @param known the keys that the schema knows at its top, to suggest from
 */
export function parseStrict<T>(
  schema: z.ZodType<T>,
  value: unknown,
  { code, subject, known }: { code: ErrorCode; subject: string; known: readonly string[] },
): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new ResidualSkipError(
    code,
    result.error.issues.map((issue) => explain(subject, issue, known)).join('; '),
    { cause: result.error },
  );
}
