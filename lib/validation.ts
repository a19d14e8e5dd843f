import { z } from 'zod';
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

/**
 * The options that a function takes itself, checked by `shape`, and those that it hands on, which are checked there.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function parsePart<S extends z.ZodRawShape, O extends object>(
  shape: S,
  options: O,
): { own: Pick<O, keyof S & keyof O>; rest: Omit<O, keyof S> } {
  if (typeof options !== 'object' || options === null) {
    throw new ResidualSkipError('INVALID_ARGUMENT', 'options: expected an object');
  }
  const isOwn = ([name]: [string, unknown]) => Object.hasOwn(shape, name);
  const entries = Object.entries(options);
  const own = Object.fromEntries(entries.filter(isOwn));
  parseStrict(z.strictObject(shape), own, { code: 'INVALID_ARGUMENT', subject: 'options', known: [] });
  const rest = Object.fromEntries(entries.filter((entry) => !isOwn(entry)));
  return { own: own as Pick<O, keyof S & keyof O>, rest: rest as Omit<O, keyof S> };
}
