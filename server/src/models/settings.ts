import { basename } from 'node:path';
import { loadPolicy, type SkipPolicy } from 'residual-skip';

/** One depth at which a model can run. */
export interface Setting {
  /** `full`, `original`, `model` (its own gates decide), or the limit that the policy promises, such as `0.01`. */
  readonly name: string;
  readonly policy: SkipPolicy | 'full' | 'model';
  /** The policy file that it is from; null for the others. */
  readonly file: string | null;
  /** Certified limit on the share of answers that differ from the full network's; null if nothing was certified. */
  readonly promise: { readonly limit: number; readonly confidence: number; readonly metric: string } | null;
}

export const FULL: Setting = {
  name: 'full',
  policy: 'full',
  file: null,
  promise: { limit: 0, confidence: 1, metric: 'disagreement' },
};

/** The network whose answers the policy of an 8-bit model promises runs in place of the model, in full. */
export const ORIGINAL: Setting = { ...FULL, name: 'original' };

/** SHA-256 of the model that the setting is tied to; undefined if it fits any. */
export function modelOf({ policy }: Setting): string | undefined {
  return typeof policy === 'object' ? policy.model?.sha256 : undefined;
}

/** SHA-256 of another network whose answers the setting promises. */
export function originalOf({ policy }: Setting): string | undefined {
  return typeof policy === 'object' ? policy.reference?.sha256 : undefined;
}

/**
 * The settings of a model, from careful to bold: full depth first, then the settings of the policies by promised limit.
 * @param sources policy files; `model` for the gates in the model file, which promise nothing
 */
export async function settingsOf(sources: readonly string[]): Promise<readonly Setting[]> {
  const settings = await Promise.all(sources.map((source) => settingFrom(source)));
  const boldness = ({ promise }: Setting) => promise?.limit ?? 1;
  return [FULL, ...settings.flat().sort((a, b) => boldness(a) - boldness(b))];
}

/**
 * A setting and its promise, as parameters of answers and metadata.
 * @param watched whether the promise is tested; undefined if there is nothing to test
 */
export function settingParameters({ name, promise }: Setting, watched: boolean | undefined) {
  // Every answer has them, and spreading objects takes several times as long.
  const parameters: Record<string, string | number | boolean> = { policy: name };
  if (promise) {
    parameters.promise_limit = promise.limit;
    parameters.promise_confidence = promise.confidence;
    parameters.promise_metric = promise.metric;
  }
  if (watched !== undefined) parameters.promise_watched = watched;
  return parameters;
}

/** The settings of one source, the policy's own first; none for `full`. */
export async function settingFrom(source: string): Promise<Setting[]> {
  if (source === 'model') return [{ name: 'model', policy: 'model', file: null, promise: null }];
  if (source === 'full') return [];
  const { settings = [], ...own } = loadPolicy(source);
  return [own, ...settings].map((given): Setting => {
    // Runs recognise this object and don't parse it again.
    const policy = loadPolicy(given);
    const { promise } = policy;
    return {
      name: promise ? String(promise.limit) : basename(source, '.json'),
      policy,
      file: source,
      promise: promise
        ? { limit: promise.limit, confidence: promise.confidence, metric: promise.metric }
        : null,
    };
  });
}
