/** The values of `policy` options, and the policies that they stand for. */
import { readFileSync } from 'node:fs';
import { codeOfReading, ResidualSkipError } from '../errors.js';
import { LruMap } from '../util/lru-map.js';
import { emitWarning } from '../util/warnings.js';
import { hashPromised, parsePolicy, type SkipPolicy } from './policy.js';
import type { Promised } from './promise.js';

/**
 * `model`: the gates and exits in the file decide. `full`: every block runs. Otherwise a policy, or the path of a policy file.
 */
export type PolicySource = 'model' | 'full' | SkipPolicy | (string & {});

/** By JSON: a policy that is given to many runs is parsed once. */
const parsed = new LruMap<SkipPolicy>(16);
/** Policies that this module returned: they are frozen and needn't be checked again. */
const loaded = new WeakSet<SkipPolicy>();
/** What was certified of policies that were edited since. */
const voided = new WeakMap<SkipPolicy, Promised>();

const MODEL_POLICY = settled({ blocks: {} });
/** Every block runs. */
export const FULL_POLICY = settled({ default: 'run', blocks: {} });

/**
 * The policy that `source` stands for, checked as far as possible without a model. It is frozen, and the same object
 * for the same JSON as long as it is in use. A policy, or one of its settings, that was edited after it was certified loses its promise, and
 * a process warning says so.
 * @throws ResidualSkipError INVALID_POLICY, READ_FAILED
 */
export function loadPolicy(source: PolicySource): SkipPolicy {
  if (source === 'model') return MODEL_POLICY;
  if (source === 'full') return FULL_POLICY;
  if (typeof source === 'string') {
    const text = readPolicyFile(source);
    return parseOnce(text, () => parseJson(text, source), `policy '${source}'`);
  }
  if (loaded.has(source)) return source;
  return parseOnce(jsonOf(source), () => source, 'policy');
}

/** A policy whose promise names what it is about, which is checked when it is loaded. */
export function sealed(policy: SkipPolicy & { readonly promise: Promised }): SkipPolicy {
  return { ...policy, promise: { ...policy.promise, settings: hashPromised(policy) } };
}

/** What was certified of a loaded policy that was edited since; undefined for others. */
export function voidedPromise(policy: SkipPolicy): Promised | undefined {
  return voided.get(policy);
}

function settled(policy: SkipPolicy): SkipPolicy {
  loaded.add(deepFreeze(policy));
  return policy;
}

function parseOnce(json: string | undefined, value: () => unknown, subject: string): SkipPolicy {
  const known = json === undefined ? undefined : parsed.get(json);
  if (known) return known;
  const policy = settled(withoutVoid(parsePolicy(value(), subject), subject));
  if (json !== undefined) parsed.set(json, policy);
  return policy;
}

/** The policy without promises that were certified for other settings than its own. */
function withoutVoid(policy: SkipPolicy, subject: string): SkipPolicy {
  const { promise, settings, ...rest } = policy;
  const bolder = settings?.map((setting, i) => withoutVoid(setting, `${subject}, settings.${i}`));
  const isVoid = promise?.settings !== undefined && promise.settings !== hashPromised(policy);
  const kept = { ...rest, ...(promise && !isVoid && { promise }), ...(bolder && { settings: bolder }) };
  if (isVoid) {
    voided.set(kept, promise);
    emitWarning(
      'NOTE',
      `${subject}: it was edited after it was certified (thresholds, heads, guards, the limit, or whatever else its promise is about), so that ` +
        "it promises nothing; restore it, calibrate again, or remove its key 'promise'",
    );
  }
  return kept;
}

/** Undefined for values without JSON, such as cyclic objects; the parser reports what is wrong with them. */
function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined;
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  for (const part of Object.values(value)) deepFreeze(part);
  return Object.freeze(value);
}

function readPolicyFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ResidualSkipError(
      codeOfReading(error, 'INVALID_POLICY'),
      `policy '${path}': it can't be read (${(error as Error).message}); expected 'model', 'full', a SkipPolicy or a JSON file`,
      { cause: error },
    );
  }
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ResidualSkipError(
      'INVALID_POLICY',
      `policy '${path}': it is not JSON (${(error as Error).message})`,
      {
        cause: error,
      },
    );
  }
}
