import { ImageClassifier, InferenceSession, type Tensor, type TensorMetadata } from 'residual-skip';
import { ServerError } from './errors.js';
import { PromiseMonitor, type Trip } from './promise-monitor.js';
import { FULL, modelOf, referenceOf, type Setting } from './settings.js';

export interface ModelOptions {
  /** Ordered from careful to bold; the first is full depth. Those that are tied to another model are left out. */
  readonly settings: readonly Setting[];
  /** By SHA-256: networks whose answers policies may promise. */
  readonly references?: ReadonlyMap<string, string>;
  readonly threads: number;
  /** Share of the items that also run in full to test promises; 0 for none. */
  readonly shadow: number;
  /** Called when a promise is found broken; from then on the model runs in full. */
  readonly onTrip?: (model: ServedModel, from: Setting, trip: Trip) => void;
}

/** Counters of a model since it was loaded; times in nanoseconds, as in the protocol's statistics extension. */
export interface ModelCounts {
  requests: number;
  items: number;
  calls: number;
  failures: number;
  queueNs: number;
  computeNs: number;
  lastMs: number;
}

/** One version of a model, ready to run. */
export class ServedModel {
  readonly counts: ModelCounts = {
    requests: 0,
    items: 0,
    calls: 0,
    failures: 0,
    queueNs: 0,
    computeNs: 0,
    lastMs: 0,
  };
  /** Index of the boldest setting allowed; a tripped monitor lowers it to 0. */
  boldest: number;
  /** Index of the current setting. */
  current: number;
  #users = 0;
  #closing: (() => void) | undefined;

  private constructor(
    readonly name: string,
    readonly version: string,
    readonly path: string,
    readonly session: InferenceSession,
    /** Null if the network is no image classifier. */
    readonly classifier: ImageClassifier | null,
    readonly settings: readonly Setting[],
    readonly monitor: PromiseMonitor | null,
  ) {
    this.boldest = settings.length - 1;
    this.current = this.boldest;
  }

  /** Loads the model at `path`, a folder or an ONNX file. Errors as ImageClassifier.from. */
  static async load(
    name: string,
    version: string,
    path: string,
    options: ModelOptions,
  ): Promise<ServedModel> {
    const { classifier, session, settings, monitor } = await open(path, options.settings, options);
    const model = new ServedModel(name, version, path, session, classifier, settings, monitor);
    monitor?.onTrip((trip) => {
      const from = model.setting;
      model.boldest = 0;
      options.onTrip?.(model, from, trip);
    });
    return model;
  }

  get setting(): Setting {
    return this.settings[Math.min(this.current, this.boldest)]!;
  }

  get inputs(): readonly TensorMetadata[] {
    return this.session.inputMetadata;
  }

  get outputs(): readonly TensorMetadata[] {
    return this.session.outputMetadata;
  }

  /** The setting called `name`; INVALID_ARGUMENT if the model lacks it, UNAVAILABLE if it is suspended. */
  settingCalled(name: string): Setting {
    if (name === 'full') return FULL;
    const at = this.settings.findIndex((setting) => setting.name === name);
    if (at < 0) {
      const known = this.settings.map((setting) => setting.name).join(', ');
      throw new ServerError(
        'INVALID_ARGUMENT',
        `policy '${name}': model ${this.name} doesn't have it; it has ${known}`,
      );
    }
    if (at > this.boldest) {
      throw new ServerError(
        'UNAVAILABLE',
        `policy '${name}': it is suspended because it changed more answers than it promises; leave the choice to the server`,
      );
    }
    return this.settings[at]!;
  }

  /** Keeps the model alive while `work` runs, even if it is unloaded meanwhile. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing)
      throw new ServerError('UNAVAILABLE', `model ${this.name}: it is being unloaded; load it again`);
    this.#users++;
    try {
      return await work();
    } finally {
      this.#users--;
      if (this.#users === 0) (this.#closing as (() => void) | undefined)?.();
    }
  }

  /** Releases the model once it is no longer in use. */
  async close(): Promise<void> {
    const unused = new Promise<void>((resolve) => {
      this.#closing = resolve;
    });
    if (this.#users > 0) await unused;
    await this.session.release();
  }

  /** Decodes and preprocesses the bytes of an image file. */
  async decode(bytes: Uint8Array): Promise<Tensor<'float32'>> {
    if (this.classifier) return this.classifier.prepare(bytes);
    throw new ServerError('INVALID_ARGUMENT', `model ${this.name}: it doesn't take images; send its tensors`);
  }
}

/** Opens a model with those of the settings that fit it. */
async function open(
  path: string,
  settings: readonly Setting[],
  options: Pick<ModelOptions, 'references' | 'threads' | 'shadow'>,
) {
  const { references, threads, shadow } = options;
  const { policy } = settings.at(-1)!;
  const reference = references?.get(referenceOf(settings.at(-1)!) ?? '');
  // Nothing else can tell whether the answers are that network's.
  const watchable = settings.filter(
    (setting) => referenceOf(setting) === undefined || reference !== undefined,
  );
  const monitor = PromiseMonitor.of(watchable, shadow);
  const sessionOptions = { threads, observers: monitor ? [monitor] : [], policy, reference };
  let fitting: readonly Setting[];
  try {
    const classifier = await ImageClassifier.from(path, sessionOptions).catch((error: unknown) => {
      if (isNoClassifier(error)) return null;
      throw error;
    });
    const session = classifier?.session ?? (await InferenceSession.create(path, sessionOptions));
    const { sha256: own } = session.model;
    fitting = settings.filter((setting) => [own, undefined].includes(modelOf(setting)));
    if (fitting.length === settings.length) return { classifier, session, settings, monitor };
    await session.release();
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'POLICY_MISMATCH') throw error;
    const other = modelOf(settings.at(-1)!);
    fitting = settings.filter((setting) => modelOf(setting) !== other);
  }
  return open(path, fitting, options);
}

/** Whether the model itself loads, but doesn't take an image or return class scores. */
function isNoClassifier(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === 'INVALID_ARGUMENT';
}
