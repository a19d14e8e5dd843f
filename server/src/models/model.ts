import {
  decodingBytes,
  type ImageClassifier,
  type InferenceSession,
  type ItemRequest,
  type RunContext,
  type RunObserver,
  type Tensor,
  type TensorMap,
  type TensorMetadata,
  type TextClassifier,
  type TracedRun,
} from 'residual-skip';
import type { Caller } from '../caller.js';
import { decodes } from '../inference/decodes.js';
import { ServerError } from '../errors.js';
import { type ClassScores, type OpenOptions, open, prepare, promisedBy, scoresOfTexts } from './open.js';
import { contextOfOriginal, eventOfOriginal } from './original.js';
import type { Evidence, PromiseMonitor } from './promise-monitor.js';
import { ORIGINAL, originalOf, type Setting } from './settings.js';

export interface ModelOptions extends OpenOptions {
  /** Called when the model is there. */
  readonly onLoad?: (model: ServedModel) => void;
  /** Called when a promise is found broken: then the model, or its original if it has one, runs in full. */
  readonly onTrip?: (model: ServedModel, from: Setting, trip: Evidence) => void;
  /** Called when it is found that promises hold again: then all settings are allowed again. */
  readonly onRearm?: (model: ServedModel, from: Setting, evidence: Evidence) => void;
}

/** Bytes of a text. Longer ones are cut by the tokenizer anyway, which would take long for them. */
const MAX_TEXT = 32 << 10;

/** Counters of a model since it was loaded; times in nanoseconds, as in the protocol's statistics extension. */
export interface ModelCounts {
  requests: number;
  items: number;
  calls: number;
  failures: number;
  /** Time until requests had failed. */
  failNs: number;
  /** Of decoding and preparing inputs. */
  inputNs: number;
  queueNs: number;
  computeNs: number;
  lastMs: number;
  /** By number of items: calls of the engine, and their time. */
  readonly batches: Map<number, { calls: number; ns: number }>;
}

/** One version of a model, ready to run. */
export class ServedModel {
  readonly counts: ModelCounts = {
    requests: 0,
    items: 0,
    calls: 0,
    failures: 0,
    failNs: 0,
    inputNs: 0,
    queueNs: 0,
    computeNs: 0,
    lastMs: 0,
    batches: new Map(),
  };
  /** Groups of clients for which the monitor has tripped. */
  readonly #tripped = new Set<string>();
  /** Index of the current setting. */
  current: number;
  /** From careful to bold. */
  settings: readonly Setting[];
  /** Null if the network is no classifier of images or texts. */
  readonly classifier: ClassScores | null;
  readonly outputNames: readonly string[];
  /** Whether each item of a batch runs by itself. */
  readonly itemwise: boolean;
  #originalContext: RunContext | undefined;
  #users = 0;
  #closing: (() => void) | undefined;

  private constructor(
    readonly name: string,
    readonly version: string,
    readonly path: string,
    readonly session: InferenceSession,
    /** Null if the network takes no images, or has no classes. */
    readonly images: ImageClassifier | null,
    /** Null if the network takes no texts, or has no classes. */
    readonly text: TextClassifier | null,
    settings: readonly Setting[],
    readonly monitor: PromiseMonitor | null,
    current: number,
    /** Records the runs of requests. */
    readonly audit: RunObserver | undefined,
    readonly originals: ModelOptions['originals'],
  ) {
    this.settings = settings;
    this.classifier = images ?? (text && scoresOfTexts(text));
    this.outputNames = session.outputNames;
    this.itemwise = session.model.batching === 'item';
    this.current = current;
  }

  /** Loads the model at `path`, a folder or an ONNX file. Errors as ImageClassifier.from. */
  static async load(
    name: string,
    version: string,
    path: string,
    options: ModelOptions,
  ): Promise<ServedModel> {
    const { images, text, session, settings, monitor, current } = await open(path, options);
    const { audit, originals } = options;
    try {
      await prepare(session, settings);
      monitor?.begin();
    } catch (error) {
      await session.release();
      throw error;
    }
    const model = new ServedModel(
      name,
      version,
      path,
      session,
      images,
      text,
      settings.map(promisedBy(settings)),
      monitor,
      current,
      audit,
      originals,
    );
    monitor?.onTrip((trip) => {
      const from = model.settingFor(trip.group);
      if (monitor.hasOriginal && !model.settings.includes(ORIGINAL)) {
        model.settings = [ORIGINAL, ...model.settings];
        model.current++;
      }
      model.#tripped.add(trip.group);
      options.onTrip?.(model, from, trip);
    });
    monitor?.onRearm((evidence) => {
      const from = model.settingFor(evidence.group);
      model.#tripped.delete(evidence.group);
      options.onRearm?.(model, from, evidence);
    });
    options.onLoad?.(model);
    return model;
  }

  get setting(): Setting {
    return this.settingFor('');
  }

  /** The setting in force for clients of a group; '' for those without. */
  settingFor(group: string): Setting {
    return this.settings[Math.min(this.current, this.boldestFor(group))]!;
  }

  get boldest(): number {
    return this.boldestFor('');
  }

  /** Index of the boldest setting that is allowed for clients of a group: full depth after a trip. */
  boldestFor(group: string): number {
    return this.#tripped.has(group) ? 0 : this.settings.length - 1;
  }

  /** Whether the monitor has tripped for any group. */
  get isTripped(): boolean {
    return this.#tripped.size > 0;
  }

  get inputs(): readonly TensorMetadata[] {
    return this.session.inputMetadata;
  }

  get outputs(): readonly TensorMetadata[] {
    return this.session.outputMetadata;
  }

  /** The setting called `name`; INVALID_ARGUMENT if the model lacks it, UNAVAILABLE if it is suspended. */
  settingCalled(name: string, group: string): Setting {
    const at = this.settings.findIndex((setting) => setting.name === name);
    if (at < 0) {
      const known = this.settings.map((setting) => setting.name).join(', ');
      throw new ServerError(
        'INVALID_ARGUMENT',
        `policy '${name}': model ${this.name} doesn't have it; it has ${known}`,
      );
    }
    if (at > this.boldestFor(group) && name !== 'full') {
      throw new ServerError(
        'UNAVAILABLE',
        `policy '${name}': it is suspended because it changed more answers than it promises; leave the choice to the server`,
      );
    }
    return this.settings[at]!;
  }

  /** The boldest setting of those allowed now that promises to change at most this share of the answers. */
  settingWithin(limit: number, group: string): Setting {
    const within = this.settings
      .slice(0, Math.min(this.current, this.boldestFor(group)) + 1)
      .filter(({ promise }) => promise?.metric === 'disagreement' && promise.limit <= limit);
    if (within.length > 0) return within.at(-1)!;
    throw new ServerError(
      'INVALID_ARGUMENT',
      `parameters.max_disagreement: model ${this.name} has no setting that promises it; leave it out`,
    );
  }

  /** Whether the setting's promise is tested; undefined if there is nothing to test. */
  isWatched(setting: Setting): boolean | undefined {
    if (typeof setting.policy !== 'object' || !setting.promise) return undefined;
    return this.monitor?.watches.has(setting) ?? false;
  }

  /** Number of items that feeds hold: one if the model mixes the items of a batch. */
  itemsOf(feeds: Readonly<Record<string, Tensor>>): number {
    return this.itemwise ? (Object.values(feeds)[0]?.dims[0] ?? 1) : 1;
  }

  /** Runs a batch in a setting. */
  run(
    setting: Setting,
    feeds: Readonly<Record<string, Tensor>>,
    fetches: readonly string[],
    by: RunBy,
  ): Promise<TracedRun> {
    const { group = '' } = by;
    const run = this.#runIn(setting, feeds, fetches, by);
    if (this.#tripped.has(group)) {
      this.monitor?.try(group, feeds, this.itemsOf(feeds), (on, item, request) =>
        this.#runIn(on, item, fetches, { requests: [request] }),
      );
    }
    return run;
  }

  #runIn(
    setting: Setting,
    feeds: Readonly<Record<string, Tensor>>,
    fetches: readonly string[],
    by: RunBy,
  ): Promise<TracedRun> {
    if (setting === ORIGINAL) return this.#runOriginal(feeds, by);
    const { policy } = setting;
    const { requests, signal } = by;
    // The session reads fewer options faster.
    const options = requests || signal ? { policy, requests, signal } : { policy };
    return this.session.runTraced(feeds, fetches, options);
  }

  async #runOriginal(feeds: Readonly<Record<string, Tensor>>, { requests }: RunBy): Promise<TracedRun> {
    const start = performance.now();
    const outputs = await this.monitor!.runOriginal(feeds);
    const milliseconds = performance.now() - start;
    const { multiplyAdds } = this.session.model;
    const item = { blocks: [], exits: [], multiplyAddsSkipped: 0, layersSkipped: 0 };
    const items = Array.from({ length: this.itemsOf(feeds) }, () => item);
    const trace = { items, multiplyAdds: multiplyAdds ?? 0, layers: 0 };
    // The session's observers don't see this run: it is that of another network.
    if (requests) {
      const sha256 = this.settings.map(originalOf).find((one) => one !== undefined)!;
      const source = this.originals?.get(sha256) ?? null;
      this.#originalContext ??= contextOfOriginal(this.session, sha256, source);
      const run = { context: this.#originalContext, inputs: feeds, outputs, trace, milliseconds, requests };
      void this.audit?.onRun?.(eventOfOriginal(run));
    }
    return { outputs, trace };
  }

  /** Keeps the model alive until `leave`, even if it is unloaded meanwhile. */
  enter(): void {
    if (this.#closing)
      throw new ServerError('UNAVAILABLE', `model ${this.name}: it is being unloaded; load it again`);
    this.#users++;
  }

  leave(): void {
    this.#users--;
    if (this.#users === 0) this.#closing?.();
  }

  /** Releases the model once it is no longer in use. */
  async close(): Promise<void> {
    const unused = new Promise<void>((resolve) => {
      this.#closing = resolve;
    });
    if (this.#users > 0) await unused;
    await this.session.release();
  }

  /** The feeds of a text. */
  tokens(text: string | Uint8Array, name: string): TensorMap {
    if (text.length > MAX_TEXT)
      throw new ServerError(
        'TOO_LARGE',
        `${name}: it has ${text.length} bytes, and a text may have ${MAX_TEXT}`,
      );
    const classifier = this.text!;
    const whole = typeof text === 'string' ? text : decoded(text, name);
    // JSON can name half a character.
    if (LONE_SURROGATE.test(whole)) throw notUtf8(name);
    return classifier.feeds(classifier.prepare(whole));
  }

  /** Decodes and preprocesses the bytes of an image file, as soon as the process has room for it. */
  async decode(bytes: Uint8Array, name: string, caller: Caller): Promise<Tensor<'float32'>> {
    const { images } = this;
    if (!images)
      throw new ServerError(
        'INVALID_ARGUMENT',
        `model ${this.name}: it doesn't take images; send its tensors`,
      );
    const needed = await decodingBytes(bytes, { name });
    return decodes.run(name, needed, caller, (signal) => images.prepare(bytes, { signal }));
  }
}

/** On whose behalf a run is, and what ends it early. */
interface RunBy {
  /** Of the clients; '' for those without. */
  readonly group?: string;
  readonly requests?: readonly ItemRequest[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const LONE_SURROGATE = /\p{Surrogate}/u;

/** A text that was sent as bytes. */
function decoded(bytes: Uint8Array, name: string): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw notUtf8(name, cause);
  }
}

function notUtf8(name: string, cause?: unknown): ServerError {
  return new ServerError('INVALID_ARGUMENT', `${name}: it isn't UTF-8; send text in UTF-8`, { cause });
}
