import { z } from 'zod';
import { type ErrorCode, ResidualSkipError } from '../errors.js';
import { late } from './late.js';
import { misspelt, nearNames, renamedTo, suggest } from './suggest.js';

type Issue = z.core.$ZodIssue;

function at(subject: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => `${text}.${String(key)}`, subject);
}

/** What a parser with the option `error: expectation` found, each problem at its own place. */
export function problemsOf(issues: readonly Issue[]): Issue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union' || issue.message !== INSIDE) return [issue];
    const inner = problemsOf(closestOf(issue.errors)!);
    return inner.map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
  });
}

function explain(subject: string, issue: Issue, known: readonly string[]): string {
  const place = at(subject, issue.path);
  if (issue.code !== 'unrecognized_keys') return `${place}: ${issue.message}`;
  return issue.keys
    .map((key) => `${place}: unknown key '${key}'${known.length > 0 ? `; ${suggest(key, known)}` : ''}`)
    .join('; ');
}

/** Names of types in messages, where they aren't the schemas' own. */
const TYPES: Readonly<Record<string, string>> = {
  int: 'whole number',
  record: 'object',
  tuple: 'array',
};

function article(noun: string): string {
  return `${/^[aeiou]/i.test(noun) ? 'an' : 'a'} ${noun}`;
}

function typeNamed(expected: string): string {
  if (expected === 'boolean') return 'true or false';
  if (expected === 'null' || expected === 'undefined') return expected;
  return article(TYPES[expected] ?? expected);
}

function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return `'${value.length > 40 ? `${value.slice(0, 40)}...` : value}'`;
  if (typeof value === 'function' || typeof value === 'symbol') return article(typeof value);
  if (typeof value !== 'object' || value === null) return String(value);
  if (!Array.isArray(value)) return 'an object';
  return value.length === 0 ? 'an empty array' : 'an array';
}

function oneOf(values: readonly unknown[]): string {
  const names = values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value)));
  return `${names.length > 1 ? 'one of ' : ''}${names.join(', ')}`;
}

function nearest(given: unknown, values: readonly unknown[]): string {
  if (typeof given !== 'string') return '';
  const [near] = nearNames(
    given,
    values.filter((value) => typeof value === 'string'),
  );
  return near === undefined ? '' : `; did you mean '${near}'?`;
}

/** "a number of at least 3", "an array of at most 3 elements". */
function bounded(
  { origin, inclusive }: { origin: string; inclusive?: boolean },
  way: 1 | -1,
  limit: unknown,
): string {
  if (origin === 'string' && limit === 1) return "a string that isn't empty";
  const unit = { string: ' character', array: ' element' }[origin];
  const bound = inclusive ? (way > 0 ? 'of at least' : 'of at most') : way > 0 ? 'above' : 'below';
  return `${typeNamed(origin)} ${bound} ${limit}${unit ? `${unit}${limit === 1 ? '' : 's'}` : ''}`;
}

/** Stands for the problems inside the kind of value that fits best. */
const INSIDE = 'expected another form';

/** The problems of the kind of value that fits best, of those where only parts don't fit. */
function closestOf(kinds: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const fitting = kinds.filter((issues) => issues.some(({ path }) => path.length > 0));
  return fitting.toSorted((a, b) => a.length - b.length)[0];
}

/**
 * What a schema expects where a value doesn't fit, in the words of this project's messages: for the option `error` of a parser,
 * whose own words it replaces. What a schema says of its own accord stays.
 */
export function expectation(issue: z.core.$ZodRawIssue): string {
  if (issue.code === 'unrecognized_keys') return `unknown key '${issue.keys.join("', '")}'`;
  if (issue.code === 'invalid_key') return issue.issues.map(({ message }) => message).join('; ');
  return issue.code === 'invalid_union' && closestOf(issue.errors) ? INSIDE : `expected ${kindOf(issue)}`;
}

function kindOf(issue: z.core.$ZodRawIssue): string {
  const received = `, received ${shown(issue.input)}`;
  switch (issue.code) {
    case 'invalid_type':
      return `${typeNamed(issue.expected)}${received}`;
    case 'invalid_value':
      return `${oneOf(issue.values)}${received}${nearest(issue.input, issue.values)}`;
    case 'too_small':
      return `${bounded(issue, 1, issue.minimum)}${received}`;
    case 'too_big':
      return `${bounded(issue, -1, issue.maximum)}${received}`;
    case 'invalid_union': {
      // Of objects that are told apart by one of their keys.
      const { discriminator: key } = issue;
      if (key !== undefined && issue.inclusive !== false) {
        return `${oneOf(issue.options ?? [])}, received ${shown(Object(issue.input)[key])}`;
      }
      const messages = issue.errors.flat().map(({ message }) => message);
      const kinds = new Set(messages.map((message) => message.replace(/^expected |, received .*$/g, '')));
      return `${[...kinds].join(' or ')}${received}`;
    }
    default:
      return `another value${received}`;
  }
}

/**
 * `value` parsed by a strict schema; all that is wrong in one message.
 * @param subject what the value is, for messages
 */
export function parseStrict<T>(
  schema: z.ZodType<T>,
  value: unknown,
  { code = 'INVALID_ARGUMENT', subject = 'options' }: { code?: ErrorCode; subject?: string } = {},
): T {
  const result = schema.safeParse(value, { error: expectation });
  if (result.success) return result.data;
  const known = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
  throw new ResidualSkipError(
    code,
    problemsOf(result.error.issues)
      .map((issue) => explain(subject, issue, known))
      .join('; '),
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
  parseStrict(z.strictObject(shape), own);
  const rest = Object.fromEntries(entries.filter((entry) => !isOwn(entry)));
  refuseMisspelt(rest, Object.keys(shape), 'options', 'INVALID_ARGUMENT');
  return { own: own as Pick<O, keyof S & keyof O>, rest: rest as Omit<O, keyof S> };
}

/**
 * Refuses keys of an object with keys of any name that look like misspelt ones of those that count, or are old names of them.
 * @throws ResidualSkipError with `code`
 */
export function refuseMisspelt(
  given: object,
  known: readonly string[],
  subject: string,
  code: ErrorCode,
): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const renamed = renamedTo(key, known);
    const meant = renamed ?? misspelt(key, known);
    if (meant === undefined || Object.hasOwn(given, meant)) continue;
    const hint = renamed === undefined ? `did you mean '${meant}'?` : `it is called '${meant}' now`;
    throw new ResidualSkipError(code, `${subject}: unknown key '${key}'; ${hint}`);
  }
}

/**
 * Checks the options of a caller before any is looked at.
 * @throws ResidualSkipError INVALID_ARGUMENT unless they are an object
 */
export function checkOptions(options: unknown): void {
  parseStrict(z.looseObject({}), options);
}

/** Of a SHA-256 in a file. */
export const sha256Schema = late(() =>
  z.string().regex(/^[0-9a-f]{64}$/, { error: 'expected 64 hexadecimal digits in lower case' }),
);
