/** Opens a model for the server: as what it is, and with the settings that fit it. */
import {
  ImageClassifier,
  InferenceSession,
  locateModel,
  type RunObserver,
  Tensor,
  TextClassifier,
} from 'residual-skip';
import { PromiseMonitor } from './promise-monitor.js';
import { FULL, modelOf, originalOf, type Setting, settingsOf } from './settings.js';

export interface OpenOptions {
  /**
   * Ordered from careful to bold; the first is full depth. Those that are tied to another model are left out. Without them, and where all
   * of them are, the model runs with the policy of its folder.
   */
  readonly settings?: readonly Setting[] | undefined;
  /** A model that none of the settings fits runs in full, whatever its folder has. */
  readonly inFull?: boolean;
  /** By SHA-256: networks whose answers policies may promise. */
  readonly originals?: ReadonlyMap<string, string>;
  readonly threads: number;
  /** Share of the items that also run in full to test promises; 0 for none. */
  readonly shadow: number;
  /** Share of answers that settings may change whose promise is about accuracy, which isn't tested otherwise. */
  readonly maxDisagreement?: number | undefined;
  /** Sees the runs of requests. */
  readonly audit?: RunObserver | undefined;
}

/** A model, and the settings that it has. */
interface Opened {
  readonly images: ImageClassifier | null;
  readonly text: TextClassifier | null;
  readonly session: InferenceSession;
  readonly settings: readonly Setting[];
  readonly monitor: PromiseMonitor | null;
  /** Index of the setting that it begins with. */
  readonly current: number;
}

/** Opens a model with those of the given settings that fit it or, if none does, with the policy of its folder. */
export async function open(path: string, options: OpenOptions): Promise<Opened> {
  const { settings, inFull = false } = options;
  const { policy } = (await locateModel(path)) ?? {};
  if (settings) {
    const fitting = await openFitting(path, settings, options);
    if (fitting.settings.length > 1 || inFull || policy === undefined) return fitting;
    await fitting.session.release();
  }
  const own = await settingsOf([policy ?? 'model']);
  // Bolder settings of the file are for a server that has to choose.
  return { ...(await openWith(path, own, undefined, options)), settings: own, current: 1 };
}

async function openFitting(
  path: string,
  settings: readonly Setting[],
  options: OpenOptions,
): Promise<Opened> {
  // All runs name their own, so any will do; one that is tied to a model says which settings aren't for this one.
  const first = settings.findLast((setting) => modelOf(setting) !== undefined) ?? settings.at(-1)!;
  let fitting: readonly Setting[];
  try {
    const opened = await openWith(path, settings, first.policy, options);
    const { sha256: own } = opened.session.model;
    fitting = settings.filter((setting) => [own, undefined].includes(modelOf(setting)));
    if (fitting.length === settings.length) return { ...opened, settings, current: settings.length - 1 };
    await opened.session.release();
  } catch (error) {
    const other = modelOf(first);
    if ((error as { code?: unknown }).code !== 'POLICY_MISMATCH' || other === undefined) throw error;
    fitting = settings.filter((setting) => modelOf(setting) !== other);
  }
  return openFitting(path, fitting, options);
}

/** @param policy of the session; undefined for that of the folder */
async function openWith(
  path: string,
  settings: readonly Setting[],
  policy: Setting['policy'] | undefined,
  { originals, threads, shadow, maxDisagreement, audit }: OpenOptions,
) {
  const original = originals?.get(originalOf(settings.at(-1)!) ?? '');
  // Nothing else can tell whether the answers are that network's.
  const watchable = settings.filter((setting) => originalOf(setting) === undefined || original !== undefined);
  const monitor = PromiseMonitor.of(watchable, { shadow, maxDisagreement });
  const sessionOptions = {
    threads,
    observers: [monitor, audit].filter((one) => one != null),
    policy: policy && withFrontsOf(settings, policy),
    original,
  };
  const images = await ImageClassifier.from(path, sessionOptions).catch(unless(NO_CLASSIFIER));
  const text = images ? null : await TextClassifier.from(path, sessionOptions).catch(unless(NO_TEXTS));
  const session = (images ?? text)?.session ?? (await InferenceSession.create(path, sessionOptions));
  return { images, text, session, monitor };
}

/** The policy with the fronts of all settings of its model: a session reads their files when it is created. */
function withFrontsOf(settings: readonly Setting[], policy: Setting['policy']): Setting['policy'] {
  if (typeof policy !== 'object') return policy;
  const ladders = settings.flatMap(({ policy: other }) =>
    typeof other === 'object' && other.fronts && other.model?.sha256 === policy.model?.sha256 ? [other] : [],
  );
  return ladders.length > 0 ? { ...policy, settings: ladders } : policy;
}

/** The codes when a model itself loads, but doesn't take images or texts or return class scores; or without a tokenizer. */
const NO_CLASSIFIER = ['INVALID_ARGUMENT'];
const NO_TEXTS = ['INVALID_ARGUMENT', 'INVALID_DATA', 'MISSING_DEPENDENCY'];

/** Makes errors with these codes null. */
function unless(codes: readonly string[]): (error: unknown) => null {
  return (error) => {
    if (codes.includes(String((error as { code?: unknown } | null)?.code))) return null;
    throw error;
  };
}

/** Full depth promises nothing where policies promise the answers of another network. */
export function promisedBy(settings: readonly Setting[]): (setting: Setting) => Setting {
  const ofOther = settings.some((setting) => originalOf(setting) !== undefined);
  return (setting) => (ofOther && setting === FULL ? { ...FULL, promise: null } : setting);
}

/**
 * Compiles the program of every setting: otherwise the requests that wait when the setting changes would also wait for that.
 * Only where all inputs are floats of known shapes, as images are.
 */
export async function prepare(session: InferenceSession, settings: readonly Setting[]): Promise<void> {
  const feeds: Record<string, Tensor> = {};
  for (const { name, type, shape } of session.inputMetadata) {
    const dims = shape.map((length, axis) => (typeof length === 'string' && axis === 0 ? 1 : length));
    if (type !== 'float32' || !dims.every((length) => typeof length === 'number')) return;
    const size = dims.reduce((product, length) => product * length, 1);
    feeds[name] = new Tensor(type, new Float32Array(size), dims);
  }
  for (const { policy } of settings) await session.run(feeds, { policy });
}

/** The class scores in a model's outputs. */
export interface ClassScores {
  readonly labels: readonly string[];
  /** Name of the output that has them. */
  readonly output: string;
  scoresOf(outputs: { readonly [name: string]: Tensor }, items: number): Float32Array[];
}

export function scoresOfTexts({ labels, output }: TextClassifier): ClassScores {
  const scoresOf = (outputs: { readonly [name: string]: Tensor }, items: number) => {
    const data = outputs[output]!.data as Float32Array;
    const each = data.length / items;
    return Array.from({ length: items }, (_, i) => data.subarray(i * each, (i + 1) * each));
  };
  return { labels, output, scoresOf };
}
