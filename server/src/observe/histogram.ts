import type { Registry } from 'prom-client';

type Labels = Readonly<Record<string, string | number>>;

/** A value of a metric, as prom-client exports it. */
interface Exported {
  readonly value: number;
  readonly metricName: string;
  readonly labels: Labels;
}

/** The values of a histogram with the same labels: how many came up to each bound, and their sum. */
class Series {
  readonly #counts: number[];
  #sum = 0;

  constructor(
    private readonly labels: Labels,
    private readonly bounds: readonly number[],
  ) {
    this.#counts = Array(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const { bounds } = this;
    let at = 0;
    while (at < bounds.length && value > bounds[at]!) at++;
    this.#counts[at]!++;
    this.#sum += value;
  }

  exported(name: string): Exported[] {
    let count = 0;
    const buckets = [...this.bounds, '+Inf'].map((le, i) => {
      count += this.#counts[i]!;
      return { metricName: `${name}_bucket`, labels: { le, ...this.labels }, value: count };
    });
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels: this.labels, value: this.#sum },
      { metricName: `${name}_count`, labels: this.labels, value: count },
    ];
  }
}

/** A histogram for prom-client's registry. Its own one looks up the labels of each value, which takes longer than counting it. */
export class Histogram {
  readonly type = 'histogram';
  readonly aggregator = 'sum';
  readonly #all: Series[] = [];

  constructor(
    readonly name: string,
    readonly help: string,
    private readonly bounds: readonly number[],
    registry: Registry,
  ) {
    registry.registerMetric(this as never);
  }

  /** New values with these labels. */
  series(labels: Labels): Series {
    const series = new Series(labels, this.bounds);
    this.#all.push(series);
    return series;
  }

  /** For the registry. */
  async get() {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.#all.flatMap((one) => one.exported(name)) };
  }
}
