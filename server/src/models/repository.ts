import { resolve } from 'node:path';
import { ServerError } from '../errors.js';
import { type ModelOptions, ServedModel } from './model.js';
import { type FoundModel, modelsIn, stampOf } from './model-folders.js';

/** State of one version of a model, loaded or not. */
export interface IndexEntry {
  readonly name: string;
  readonly version: string;
  readonly state: 'READY' | 'UNAVAILABLE' | 'LOADING' | 'UNLOADING';
  /** The reason why it isn't ready. */
  readonly reason: string;
}

interface Known {
  readonly name: string;
  readonly version: string;
  readonly path: string;
  state: IndexEntry['state'];
  reason: string;
  model: ServedModel | undefined;
  /** Whether it is being loaded. During a reload, the previous model keeps serving. */
  loading: boolean;
  /** Whether its folder is no longer there. */
  vanished: boolean;
  /** Of its files, when it was last loaded. */
  stamp: string;
}

type OptionsFor = (model: { readonly name: string; readonly version: string }) => Promise<ModelOptions>;

/** Finds the models in some folders, and loads and unloads them. */
export class ModelRepository {
  readonly #folders: readonly string[];
  readonly #optionsFor: OptionsFor;
  readonly #onFailure: (model: string, error: Error) => void;
  readonly #known = new Map<string, Known>();
  /** How often each model was to be unloaded: what is being loaded then isn't wanted any more. */
  readonly #unloads = new Map<string, number>();

  /**
   * @param folders each is an ONNX file, or a folder with one model (with an ONNX file), with versions of a model (`1/`,
   * `2/`, ...), or with several models
   */
  constructor(
    folders: readonly string[],
    optionsFor: OptionsFor,
    /** Is told of a version that can't be loaded while others of the model are. */
    onFailure: (model: string, error: Error) => void = () => {},
  ) {
    this.#onFailure = onFailure;
    this.#folders = folders.map((folder) => resolve(folder));
    this.#optionsFor = optionsFor;
  }

  /** Rescans the folders; models that are loaded stay as they are. */
  async scan(): Promise<void> {
    const found = new Map<string, FoundModel>();
    for (const folder of this.#folders) {
      for (const one of await modelsIn(folder)) {
        const key = keyOf(one.name, one.version);
        const other = found.get(key);
        if (other && other.path !== one.path) {
          throw new ServerError(
            'INVALID_ARGUMENT',
            `model ${one.name}: both ${other.path} and ${one.path} have this name; rename one of the folders`,
          );
        }
        found.set(key, one);
      }
    }
    for (const [key, one] of found) {
      if (!this.#known.has(key)) {
        this.#known.set(key, {
          ...one,
          state: 'UNAVAILABLE',
          reason: 'not loaded',
          model: undefined,
          loading: false,
          vanished: false,
          stamp: '',
        });
      }
    }
    for (const [key, known] of this.#known) {
      known.vanished = !found.has(key);
      if (known.vanished && !known.model) this.#known.delete(key);
    }
  }

  index(): readonly IndexEntry[] {
    return [...this.#known.values()].map(({ name, version, state, reason }) => ({
      name,
      version,
      state,
      reason,
    }));
  }

  /** Whether requests can be answered: a model is there, and none is loaded for the first time. */
  isReady(): boolean {
    const states = [...this.#known.values()].map(({ state }) => state);
    return states.includes('READY') && !states.includes('LOADING');
  }

  /** The models that are loaded. */
  loaded(): readonly ServedModel[] {
    return [...this.#known.values()].flatMap(({ model }) => model ?? []);
  }

  /** Versions of a model that are ready, oldest first; NOT_FOUND for an unknown model. */
  versionsOf(name: string): readonly ServedModel[] {
    const versions = this.#versions(name);
    return versions.flatMap(({ model }) => model ?? []);
  }

  /** A model that is ready, the newest version by default; undefined if there is none. */
  find(name: string, version?: string): ServedModel | undefined {
    let found: ServedModel | undefined;
    for (const { name: known, model } of this.#known.values()) {
      if (known !== name || !model || (version && model.version !== version)) continue;
      if (!found || Number(model.version) > Number(found.version)) found = model;
    }
    return found;
  }

  /** Like `find`, but an error if there is none: NOT_FOUND, or UNAVAILABLE if it isn't loaded. */
  get(name: string, version?: string): ServedModel {
    const model = this.find(name, version);
    if (model) return model;
    const known = this.#versions(name);
    if (version && !known.some((one) => one.version === version)) {
      throw new ServerError(
        'NOT_FOUND',
        `model ${name}: it has no version ${version}; GET /v2/models/${name} lists its versions`,
      );
    }
    throw new ServerError(
      'UNAVAILABLE',
      `model ${name}: it is not loaded (${known.at(-1)!.reason}); load it first`,
    );
  }

  /** Loads or reloads every version of a model; running requests end on the instance they began with. */
  async load(name: string): Promise<void> {
    const unloads = this.#unloadsOf(name);
    await this.scan();
    await this.#loadVersions(name, unloads);
  }

  /** Loads every model; errors as `load`, of the first model that has no version that can be loaded. */
  async loadAll(): Promise<void> {
    await this.scan();
    const names = new Set([...this.#known.values()].map(({ name }) => name));
    await Promise.all([...names].map((name) => this.#loadVersions(name)));
  }

  /** Unloads every version of a model; running requests are completed. */
  async unload(name: string): Promise<void> {
    this.#unloads.set(name, this.#unloadsOf(name) + 1);
    await Promise.all(this.#versions(name).map((known) => this.#unloadOne(known)));
  }

  #unloadsOf(name: string): number {
    return this.#unloads.get(name) ?? 0;
  }

  async #unloadOne(known: Known): Promise<void> {
    const { model } = known;
    if (!model) return;
    known.model = undefined;
    known.state = 'UNLOADING';
    await model.close();
    known.state = 'UNAVAILABLE';
    known.reason = 'unloaded';
  }

  /**
   * Looks for changes every so many milliseconds: loads models that are new or whose files have changed, and unloads those that are gone. A
   * model that was unloaded on request stays so until its files change.
   * @returns ends this
   */
  poll(milliseconds: number): () => Promise<void> {
    let looking: Promise<void> | undefined;
    const timer = setInterval(() => {
      looking ??= this.#look().finally(() => {
        looking = undefined;
      });
    }, milliseconds);
    return async () => {
      clearInterval(timer);
      await looking;
    };
  }

  async #look(): Promise<void> {
    try {
      await this.scan();
    } catch (error) {
      // As while a folder is being written.
      this.#onFailure('', error as Error);
      return;
    }
    for (const known of [...this.#known.values()]) {
      const changed = known.vanished || (await stampOf(known.path)) !== known.stamp;
      if (!changed || known.loading) continue;
      await (known.vanished ? this.#unloadOne(known) : this.#loadOne(known)).catch((error: Error) =>
        this.#onFailure(known.name, error),
      );
      if (known.vanished && !known.model) this.#known.delete(keyOf(known.name, known.version));
    }
  }

  /** Versions that can't be loaded leave the others alone; the index has their reasons. Versions that have vanished are unloaded. */
  async #loadVersions(name: string, unloads = this.#unloadsOf(name)): Promise<void> {
    const versions = this.#versions(name);
    const outcomes = await Promise.allSettled(
      versions.map((known) => (known.vanished ? this.#unloadOne(known) : this.#loadOne(known, unloads))),
    );
    for (const [key, { vanished, model }] of this.#known) if (vanished && !model) this.#known.delete(key);
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
    if (failed.length > 0 && failed.length === outcomes.length) throw failed[0]!.reason;
    for (const { reason } of failed) this.#onFailure(name, reason);
  }

  async close(): Promise<void> {
    await Promise.all(
      [...new Set([...this.#known.values()].map(({ name }) => name))].map((name) => this.unload(name)),
    );
  }

  #versions(name: string): Known[] {
    const versions = [...this.#known.values()].filter((known) => known.name === name);
    if (versions.length === 0) {
      const names = [...new Set([...this.#known.values()].map((known) => known.name))];
      throw new ServerError(
        'NOT_FOUND',
        `model ${name}: it is unknown; the models are ${names.join(', ') || 'none'}`,
      );
    }
    return versions.sort((a, b) => Number(a.version) - Number(b.version));
  }

  /** @param unloads how often the model was to be unloaded when this was asked for */
  async #loadOne(known: Known, unloads = this.#unloadsOf(known.name)): Promise<void> {
    if (known.loading) return;
    known.loading = true;
    const before = known.model;
    if (!before) known.state = 'LOADING';
    try {
      known.stamp = await stampOf(known.path);
      const loaded = await ServedModel.load(
        known.name,
        known.version,
        known.path,
        await this.#optionsFor(known),
      );
      if (this.#unloadsOf(known.name) !== unloads) {
        known.state = 'UNAVAILABLE';
        known.reason = 'unloaded';
        await loaded.close();
        return;
      }
      known.model = loaded;
      known.state = 'READY';
      known.reason = '';
    } catch (error) {
      known.state = known.model ? 'READY' : 'UNAVAILABLE';
      known.reason = (error as Error).message;
      throw error;
    } finally {
      known.loading = false;
    }
    await before?.close();
  }
}

function keyOf(name: string, version: string): string {
  return JSON.stringify([name, version]);
}
