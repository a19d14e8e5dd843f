import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ServerError } from './errors.js';
import type { Finished, Inference } from './infer.js';
import type { ServedModel } from './model.js';
import type { ModelRepository } from './repository.js';

const SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const ITEMS = [1, 2, 4, 8, 16, 32, 64];
const OF_MODEL = ['model', 'version'] as const;

/** Prometheus metrics of a server; names follow Prometheus's naming guide, labels Triton's. */
export class Metrics {
  readonly registry = new Registry();
  readonly #requests = new Counter({
    name: 'residual_skip_requests_total',
    help: 'Requests answered, by outcome: ok, or the code of the error.',
    labelNames: [...OF_MODEL, 'outcome'],
    registers: [this.registry],
  });
  readonly #items = this.#counter('items_total', 'Items that were run.');
  readonly #queue = this.#histogram('queue_seconds', 'Time that a request waited for the engine.', SECONDS);
  readonly #compute = this.#histogram(
    'compute_seconds',
    "A request's share of the time of its call.",
    SECONDS,
  );
  readonly #call = this.#histogram('call_items', 'Items that ran in the call of a request.', ITEMS);
  readonly #blocks = new Counter({
    name: 'residual_skip_blocks_total',
    help: 'Residual blocks met by items, by what became of them: ran or skipped.',
    labelNames: [...OF_MODEL, 'block', 'outcome'],
    registers: [this.registry],
  });
  readonly #saved = this.#counter(
    'multiply_adds_skipped_total',
    'Multiply-adds that skipping saved, net of heads.',
  );
  readonly #full = this.#counter(
    'multiply_adds_full_total',
    'Multiply-adds that the same items take in full.',
  );
  readonly #changes = new Counter({
    name: 'residual_skip_setting_changes_total',
    help: 'Changes of the setting, by the setting that was taken.',
    labelNames: [...OF_MODEL, 'setting'],
    registers: [this.registry],
  });

  constructor(repository: ModelRepository, inference: () => Inference) {
    const { registry } = this;
    collectDefaultMetrics({ register: registry });
    const queueGauge: Gauge = new Gauge({
      name: 'residual_skip_queue_length',
      help: 'Requests that wait for the engine.',
      registers: [registry],
      collect: () => queueGauge.set(inference().queue.length),
    });
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
    perModel(
      'promised_limit',
      'Share of changed answers that the setting in force promises at most; NaN where nothing is promised.',
      ({ setting }) => setting.promise?.limit ?? Number.NaN,
    );
    perModel(
      'monitor_tripped',
      '1 after the monitor saw more changed answers than promised.',
      ({ monitor }) => (monitor?.stats().watch.tripped ? 1 : 0),
    );
    perModel(
      'monitor_checks',
      'Items that the monitor ran in full.',
      ({ monitor }) => monitor?.stats().watch.checks ?? 0,
    );
    perModel(
      'monitor_disagreements',
      'Checked items whose answer skipping changed.',
      ({ monitor }) => monitor?.stats().watch.disagreements ?? 0,
    );
  }

  finished({ model, items, multiplyAdds, queueMs, computeMs, callItems }: Finished): void {
    const labels = { model: model.name, version: model.version };
    this.#requests.inc({ ...labels, outcome: 'ok' });
    this.#items.inc(labels, items.length);
    this.#queue.observe(labels, queueMs / 1000);
    this.#compute.observe(labels, computeMs / 1000);
    this.#call.observe(labels, callItems);
    this.#full.inc(labels, items.length * multiplyAdds);
    for (const { blocks, multiplyAddsSkipped } of items) {
      this.#saved.inc(labels, Math.max(0, multiplyAddsSkipped));
      for (const { block, ran } of blocks)
        this.#blocks.inc({ ...labels, block, outcome: ran ? 'ran' : 'skipped' });
    }
  }

  failed(model: ServedModel | null, error: ServerError): void {
    this.#requests.inc({ model: model?.name ?? '', version: model?.version ?? '', outcome: error.code });
  }

  settingChanged({ name, version, setting }: ServedModel): void {
    this.#changes.inc({ model: name, version, setting: setting.name });
  }

  #counter(name: string, help: string): Counter<(typeof OF_MODEL)[number]> {
    return new Counter({
      name: `residual_skip_${name}`,
      help,
      labelNames: OF_MODEL,
      registers: [this.registry],
    });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram<(typeof OF_MODEL)[number]> {
    return new Histogram({
      name: `residual_skip_${name}`,
      help,
      labelNames: OF_MODEL,
      buckets,
      registers: [this.registry],
    });
  }
}
