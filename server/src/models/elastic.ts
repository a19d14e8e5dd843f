import { type ControllerOptions, DepthController } from './controller.js';
import type { Inference } from '../inference/infer.js';
import type { Finished } from '../inference/messages.js';
import type { ServedModel } from './model.js';
import type { ModelRepository } from './repository.js';
import type { Setting } from './settings.js';

/** One change of a model's setting. */
export interface SettingChange {
  readonly time: number;
  readonly model: string;
  readonly from: string;
  readonly to: string;
  /** The promise of the new setting. */
  readonly promise: Setting['promise'];
  readonly reason: string;
}

export function settingChange(model: ServedModel, from: Setting, reason: string): SettingChange {
  const { name: to, promise } = model.setting;
  return { time: Date.now(), model: model.name, from: from.name, to, promise, reason };
}

const TICK_MS = 20;
/** Percentile and rate are computed from the requests of this last period. */
const WINDOW_MS = 500;

interface Tracked {
  readonly controller: DepthController;
  /** Mean time per item by setting, exponentially smoothed, in milliseconds. */
  readonly itemMs: (number | undefined)[];
  /** Recent requests: when they ended, their latency in milliseconds, and their number of items. */
  ended: { readonly at: number; readonly ms: number; readonly items: number }[];
}

/** Adapts the depth of the models to the latency target: many times a second, a controller for each model decides. */
export class ElasticDepth {
  readonly #repository: ModelRepository;
  readonly #inference: Inference;
  readonly #options: ControllerOptions;
  readonly #onChange: (model: ServedModel, change: SettingChange) => void;
  readonly #tracked = new WeakMap<ServedModel, Tracked>();
  #timer: NodeJS.Timeout | undefined;
  #ticked = 0;
  /** Delay of ticks, exponentially smoothed: requests also wait that long before the server sees them. */
  #lagMs = 0;

  constructor(
    repository: ModelRepository,
    inference: Inference,
    options: ControllerOptions,
    onChange: (model: ServedModel, change: SettingChange) => void,
  ) {
    this.#repository = repository;
    this.#inference = inference;
    this.#options = options;
    this.#onChange = onChange;
  }

  start(): void {
    this.#ticked = performance.now();
    this.#tick();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  finished({ model, setting, items, started, callMs, callItems }: Finished): void {
    const tracked = this.#of(model);
    const now = performance.now();
    tracked.ended.push({ at: now, ms: now - started, items: items.length });
    const at = model.settings.indexOf(setting);
    if (at < 0 || callItems === 0) return;
    const each = callMs / callItems;
    const known = tracked.itemMs[at] ?? each;
    tracked.itemMs[at] = known + (each - known) / 32;
  }

  #of(model: ServedModel): Tracked {
    let tracked = this.#tracked.get(model);
    if (!tracked) {
      tracked = { controller: new DepthController(this.#options), itemMs: [], ended: [] };
      this.#tracked.set(model, tracked);
      model.current = 0;
    }
    return tracked;
  }

  #tick(): void {
    const { queue } = this.#inference;
    const now = performance.now();
    this.#lagMs += (Math.max(0, now - this.#ticked - TICK_MS) - this.#lagMs) / 16;
    this.#ticked = now;
    for (const model of this.#repository.loaded()) {
      if (model.settings.length < 2) continue;
      const tracked = this.#of(model);
      tracked.ended = tracked.ended.filter(({ at }) => at > now - WINDOW_MS);
      const before = model.setting;
      const { setting, reason } = tracked.controller.tick(
        {
          now,
          queued: queue.length,
          ageMs: queue.age,
          p99Ms: this.#lagMs + percentile99(tracked.ended.map(({ ms }) => ms)),
          itemsPerSecond: (1000 * tracked.ended.reduce((sum, { items }) => sum + items, 0)) / WINDOW_MS,
          maxItems: tracked.ended.reduce((max, { items }) => Math.max(max, items), 1),
          itemMs: (index) => tracked.itemMs[index],
          calls: queue.concurrency,
        },
        model.boldest,
      );
      model.current = setting;
      // After a trip, which was already reported, the setting no longer changes.
      if (reason === null || model.setting === before) continue;
      this.#onChange(model, settingChange(model, before, reason));
    }
  }
}

/** NaN for an empty list. */
function percentile99(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(0.99 * sorted.length))]!;
}
