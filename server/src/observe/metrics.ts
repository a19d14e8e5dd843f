import { performance } from 'node:perf_hooks';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { WatchStats } from 'residual-skip';
import type { Inference } from '../inference/infer.js';
import type { Failed, Finished } from '../inference/messages.js';
import type { ServedModel } from '../models/model.js';
import type { ModelRepository } from '../models/repository.js';
import type { Setting } from '../models/settings.js';
import { packageVersion } from '../models/version.js';
import type { AuditLogs } from './audit.js';
import type { Failures } from './failures.js';
import { Histogram } from './histogram.js';

const SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const ITEMS = [1, 2, 4, 8, 16, 32, 64];
const OF_MODEL = ['model', 'version'] as const;
const OF_SETTING = [...OF_MODEL, 'setting'] as const;

/** What a model did since the last scrape. Counters of prom-client look up their labels on each call. */
class Tally {
  executed = 0;
  full = 0;
  readonly outcomes = new Map<string, number>();
  readonly items = new Map<string, number>();
  readonly blocks = new Map<string, { ran: number; skipped: number }>();
}

type Times = Record<'request' | 'input' | 'queue' | 'compute' | 'call', ReturnType<Histogram['series']>>;

/** What a model did. */
class Seen {
  /** Undefined before it has done anything since the last scrape. */
  tally: Tally | undefined;
  /** Undefined before its first answer. */
  times: Times | undefined;

  constructor(readonly labels: { readonly model: string; readonly version: string }) {}
}

/** Prometheus metrics of a server. Names follow Prometheus's naming guide, labels follow Triton. */
export class Metrics {
  readonly registry = new Registry();
  /** By version of a model. */
  readonly #seen = new Map<string, Seen>();
  readonly #requests = new Counter({
    name: 'residual_skip_requests_total',
    help: 'Requests answered, by outcome: ok, or the code of the error.',
    labelNames: [...OF_MODEL, 'outcome'],
    registers: [this.registry],
  });
  readonly #items = new Counter({
    name: 'residual_skip_items_total',
    help: 'Items that were run, by the setting that ran.',
    labelNames: OF_SETTING,
    registers: [this.registry],
  });
  readonly #request = this.#histogram(
    'request_seconds',
    'Time from when a request was read until it was answered: what --target-p99 is about.',
    SECONDS,
  );
  readonly #input = this.#histogram(
    'input_seconds',
    'Time to decode and prepare the inputs of a request, and that it waited for room to.',
    SECONDS,
  );
  readonly #queue = this.#histogram('queue_seconds', 'Time that a request waited for the engine.', SECONDS);
  readonly #compute = this.#histogram(
    'compute_seconds',
    'Time of the call that a request ran in, and that it waited for a thread before.',
    SECONDS,
  );
  readonly #call = this.#histogram('call_items', 'Items that ran in the call of a request.', ITEMS);
  readonly #blocks = new Counter({
    name: 'residual_skip_blocks_total',
    help: 'Residual blocks met by items, by what became of them: ran or skipped.',
    labelNames: [...OF_MODEL, 'block', 'outcome'],
    registers: [this.registry],
  });
  readonly #executed = this.#counter(
    'multiply_adds_executed_total',
    'Multiply-adds that ran, those of heads, guards and fronts included.',
  );
  readonly #full = this.#counter(
    'multiply_adds_full_total',
    'Multiply-adds that the same items take in full.',
  );
  readonly #changes = new Counter({
    name: 'residual_skip_setting_changes_total',
    help: 'Changes of the setting, by the setting that was taken.',
    labelNames: OF_SETTING,
    registers: [this.registry],
  });

  constructor(
    repository: ModelRepository,
    inference: () => Inference,
    failures: Failures,
    audits?: AuditLogs,
  ) {
    const { registry } = this;
    const failed: Counter<'protocol' | 'code'> = new Counter({
      name: 'residual_skip_failures_total',
      help: 'Requests of any kind that were answered with an error, by its code.',
      labelNames: ['protocol', 'code'],
      registers: [registry],
      collect: () => {
        failed.reset();
        for (const { labels, count } of failures.counts.values()) failed.inc(labels, count);
      },
    });
    collectDefaultMetrics({ register: registry });
    const queueGauge: Gauge = new Gauge({
      name: 'residual_skip_queue_length',
      help: 'Requests that wait for the engine.',
      registers: [registry],
      collect: () => queueGauge.set(inference().queue.length),
    });
    const inFlight: Gauge = new Gauge({
      name: 'residual_skip_in_flight',
      help: 'Requests that were read and have no answer yet.',
      registers: [registry],
      collect: () => inFlight.set(inference().inFlight),
    });
    new Gauge({
      name: 'residual_skip_build_info',
      help: '1; the labels say what runs.',
      labelNames: ['version', 'node'],
      registers: [registry],
    }).set({ version: packageVersion(), node: process.versions.node }, 1);
    const busy: Counter = new Counter({
      name: 'residual_skip_event_loop_busy_seconds_total',
      help: 'Time in which the thread that reads and answers requests had work: with the requests, what each takes of it.',
      registers: [registry],
      collect: () => {
        busy.reset();
        busy.inc(performance.eventLoopUtilization().active / 1000);
      },
    });
    const ofAudit = (name: string, help: string, value: () => number) => {
      const counter: Counter = new Counter({
        ...{ name: `residual_skip_audit_${name}_total`, help, registers: [registry] },
        collect: () => {
          counter.reset();
          counter.inc(value());
        },
      });
    };
    if (audits) {
      ofAudit('lost', 'Items and inputs that could not be recorded.', () => audits.lost());
      ofAudit('removed', 'Rotated files of records that were removed, by age or size.', () =>
        audits.removed(),
      );
    }
    const labels = ({ name, version }: ServedModel) => ({ model: name, version });
    const perModel = (name: string, help: string, value: (model: ServedModel) => number) => {
      const gauge: Gauge<(typeof OF_MODEL)[number]> = new Gauge({
        name: `residual_skip_${name}`,
        help,
        labelNames: OF_MODEL,
        registers: [registry],
        collect: () => {
          gauge.reset();
          for (const model of repository.loaded()) gauge.set(labels(model), value(model));
        },
      });
    };
    perModel('setting', 'Index of the setting in force; 0 is full depth.', ({ current }) => current);
    perModel('boldest_setting', 'Index of the boldest setting that is allowed.', ({ boldest }) => boldest);
    const perSetting = (
      name: string,
      help: string,
      value: (setting: Setting, model: ServedModel) => number | undefined,
    ) => {
      const gauge: Gauge<(typeof OF_SETTING)[number]> = new Gauge({
        name: `residual_skip_${name}`,
        help,
        labelNames: OF_SETTING,
        registers: [registry],
        collect: () => {
          gauge.reset();
          for (const model of repository.loaded()) {
            for (const setting of model.settings) {
              const known = value(setting, model);
              if (known !== undefined) gauge.set({ ...labels(model), setting: setting.name }, known);
            }
          }
        },
      });
    };
    perSetting('setting_active', '1 for the setting in force.', (setting, model) =>
      setting === model.setting ? 1 : 0,
    );
    perSetting(
      'promised_limit',
      'What the setting promises at most, in its metric; settings without a promise are missing.',
      ({ promise }) => promise?.limit,
    );
    perSetting(
      'promise_watched',
      '1 if a share of the answers is tested for what the setting promises, 0 if nothing tests it.',
      (setting, model) => {
        const known = model.isWatched(setting);
        return known === undefined ? undefined : Number(known);
      },
    );
    const perWatch = (name: string, help: string, value: (seen: WatchStats) => number) => {
      const gauge: Gauge<(typeof OF_SETTING)[number] | 'group'> = new Gauge({
        name: `residual_skip_${name}`,
        help: `${help} Clients with a group are tested by themselves.`,
        labelNames: [...OF_SETTING, 'group'],
        registers: [registry],
        collect: () => {
          gauge.reset();
          for (const model of repository.loaded())
            for (const setting of model.settings)
              for (const [group, one] of model.monitor?.watchesOf(setting) ?? [])
                gauge.set(
                  { ...labels(model), setting: setting.name, ...(group && { group }) },
                  value(one.stats().watch),
                );
        },
      });
    };
    perWatch('monitor_tripped', '1 after the monitor saw more changed answers than promised.', (seen) =>
      Number(seen.tripped),
    );
    perWatch('monitor_checks', 'Items that the monitor ran in full too.', ({ checks }) => checks);
    perWatch(
      'monitor_disagreements',
      'Checked items whose answer skipping changed.',
      ({ disagreements }) => disagreements,
    );
  }

  finished(finished: Finished): void {
    const { model, setting, items, multiplyAdds, started, inputMs, queueMs, callMs, callItems } = finished;
    const seen = this.#seenOf(model);
    seen.times ??= this.#timesOf(seen.labels);
    seen.tally ??= new Tally();
    const { times, tally } = seen;
    times.request.observe((performance.now() - started) / 1000);
    times.input.observe(inputMs / 1000);
    times.queue.observe(queueMs / 1000);
    times.compute.observe(callMs / 1000);
    times.call.observe(callItems);
    add(tally.outcomes, 'ok', 1);
    add(tally.items, setting.name, items.length);
    tally.full += items.length * multiplyAdds;
    for (const { blocks, multiplyAddsSkipped } of items) {
      tally.executed += multiplyAdds - multiplyAddsSkipped;
      for (const { block, ran } of blocks) {
        const counts = tally.blocks.get(block) ?? { ran: 0, skipped: 0 };
        counts[ran ? 'ran' : 'skipped']++;
        tally.blocks.set(block, counts);
      }
    }
  }

  failed({ model, error }: Failed): void {
    const seen = this.#seenOf(model);
    seen.tally ??= new Tally();
    add(seen.tally.outcomes, error.code, 1);
  }

  settingChanged({ name, version, setting }: ServedModel): void {
    this.#changes.inc({ model: name, version, setting: setting.name });
  }

  /** All metrics in the text format of Prometheus. */
  text(): Promise<string> {
    for (const seen of this.#seen.values()) {
      const { labels, tally } = seen;
      if (!tally) continue;
      seen.tally = undefined;
      const { outcomes, executed, full, items, blocks } = tally;
      for (const [outcome, count] of outcomes) this.#requests.inc({ ...labels, outcome }, count);
      if (items.size === 0) continue;
      this.#executed.inc(labels, executed);
      this.#full.inc(labels, full);
      for (const [setting, count] of items) this.#items.inc({ ...labels, setting }, count);
      for (const [block, counts] of blocks) {
        for (const [outcome, count] of Object.entries(counts)) {
          if (count > 0) this.#blocks.inc({ ...labels, block, outcome }, count);
        }
      }
    }
    return this.registry.metrics();
  }

  #seenOf(of: Pick<ServedModel, 'name' | 'version'> | null): Seen {
    const model = of?.name ?? '';
    const version = of?.version ?? '';
    const key = `${model}/${version}`;
    let seen = this.#seen.get(key);
    if (!seen) {
      seen = new Seen({ model, version });
      this.#seen.set(key, seen);
    }
    return seen;
  }

  #timesOf(labels: Seen['labels']): Times {
    return {
      request: this.#request.series(labels),
      input: this.#input.series(labels),
      queue: this.#queue.series(labels),
      compute: this.#compute.series(labels),
      call: this.#call.series(labels),
    };
  }

  #counter(name: string, help: string): Counter<(typeof OF_MODEL)[number]> {
    return new Counter({
      name: `residual_skip_${name}`,
      help,
      labelNames: OF_MODEL,
      registers: [this.registry],
    });
  }

  #histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return new Histogram(`residual_skip_${name}`, help, bounds, this.registry);
  }
}

function add(counts: Map<string, number>, key: string, more: number): void {
  counts.set(key, (counts.get(key) ?? 0) + more);
}
