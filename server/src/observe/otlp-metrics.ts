/** Metrics by OTLP over HTTP, as JSON: the same as those of Prometheus, pushed to a collector. */
import type { Registry } from 'prom-client';
import { packageVersion } from '../models/version.js';
import type { ParsedOptions } from '../options.js';

const INTERVAL_MS = 60_000;
const CUMULATIVE = 2;

interface Value {
  readonly value: number;
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string | number>>;
}

const attributesOf = (labels: Value['labels']) =>
  Object.entries(labels).map(([key, value]) => ({ key, value: { stringValue: String(value) } }));

/** A histogram of Prometheus, whose buckets count everything up to a bound, as one of OTLP. */
function histogramOf(values: readonly Value[], times: object): object[] {
  const points = new Map<
    string,
    { labels: Value['labels']; bounds: [number, number][]; sum: number; count: number }
  >();
  for (const { value, metricName = '', labels } of values) {
    const { le, ...own } = labels;
    const key = JSON.stringify(own);
    const point = points.get(key) ?? { labels: own, bounds: [], sum: 0, count: 0 };
    points.set(key, point);
    if (metricName.endsWith('_sum')) point.sum = value;
    else if (metricName.endsWith('_count')) point.count = value;
    else if (le !== '+Inf') point.bounds.push([Number(le), value]);
  }
  return [...points.values()].map(({ labels, bounds, sum, count }) => {
    const upTo = [...bounds.map(([, below]) => below), count];
    return {
      ...times,
      attributes: attributesOf(labels),
      ...{ sum, count: String(count) },
      explicitBounds: bounds.map(([bound]) => bound),
      bucketCounts: upTo.map((below, i) => String(below - (upTo[i - 1] ?? 0))),
    };
  });
}

/** The metrics of a registry as the body of an OTLP export. @param started milliseconds since 1970 */
export async function exportOf(registry: Registry, started: number): Promise<object> {
  const nanoseconds = (milliseconds: number) => `${Math.round(milliseconds)}000000`;
  const times = { startTimeUnixNano: nanoseconds(started), timeUnixNano: nanoseconds(Date.now()) };
  const metrics = (await registry.getMetricsAsJSON()).map(({ name, help, type, values: given }) => {
    const values = given as readonly Value[];
    const points = () =>
      values.map(({ value, labels }) => ({ ...times, attributes: attributesOf(labels), asDouble: value }));
    const of = { name, description: help };
    // prom-client names types by words here, whatever its declarations say.
    const kind = String(type);
    if (kind === 'histogram')
      return {
        ...of,
        histogram: { aggregationTemporality: CUMULATIVE, dataPoints: histogramOf(values, times) },
      };
    if (kind === 'counter')
      return { ...of, sum: { aggregationTemporality: CUMULATIVE, isMonotonic: true, dataPoints: points() } };
    return { ...of, gauge: { dataPoints: points() } };
  });
  const service = {
    'service.name': process.env.OTEL_SERVICE_NAME ?? 'residual-skip',
    'service.version': packageVersion(),
  };
  const scope = { name: 'residual-skip-server', version: packageVersion() };
  return {
    resourceMetrics: [
      { resource: { attributes: attributesOf(service) }, scopeMetrics: [{ scope, metrics }] },
    ],
  };
}

/** Where the environment wants metrics: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, or OTEL_METRICS_EXPORTER=otlp with the common endpoint. */
function endpointOf(environment: NodeJS.ProcessEnv): string | undefined {
  const { OTEL_METRICS_EXPORTER: exporter, OTEL_EXPORTER_OTLP_ENDPOINT: common } = environment;
  const { OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: own } = environment;
  if (exporter === 'none') return undefined;
  if (own) return own;
  return exporter === 'otlp' && common ? `${common.replace(/\/$/, '')}/v1/metrics` : undefined;
}

/** `name=value,...`, as the variables for headers have them. */
function headersOf(text = ''): [string, string][] {
  const pairs = text.split(',').map((pair) => pair.split('='));
  return pairs.flatMap(([name, ...value]) =>
    name?.trim() ? [[name.trim(), decodeURIComponent(value.join('=').trim())]] : [],
  );
}

/**
 * Pushes metrics as long as the server runs, if the environment names a collector. A push that fails is logged, and the next one has what
 * it had: values are cumulative.
 * @param refresh brings the registry up to date
 * @returns ends this, after a last push; undefined if there is no collector
 */
export function pushMetrics(
  registry: Registry,
  refresh: () => Promise<unknown>,
  log: ParsedOptions['log'],
  environment = process.env,
): (() => Promise<void>) | undefined {
  const url = endpointOf(environment);
  if (url === undefined) return undefined;
  const interval = Number(environment.OTEL_METRIC_EXPORT_INTERVAL ?? INTERVAL_MS);
  const { OTEL_EXPORTER_OTLP_METRICS_HEADERS: own, OTEL_EXPORTER_OTLP_HEADERS: common } = environment;
  const headers = { 'content-type': 'application/json', ...Object.fromEntries(headersOf(own ?? common)) };
  const started = Date.now();
  let pushing: Promise<void> | undefined;
  const push = async () => {
    try {
      await refresh();
      const body = JSON.stringify(await exportOf(registry, started));
      const signal = AbortSignal.timeout(10_000);
      const answer = await fetch(url, { method: 'POST', headers, body, signal });
      await answer.body?.cancel();
      if (!answer.ok) throw new Error(`the collector answered ${answer.status}`);
    } catch (error) {
      log?.({ event: 'metrics', error: (error as Error).message });
    }
  };
  const timer = setInterval(() => {
    pushing ??= push().finally(() => {
      pushing = undefined;
    });
  }, interval).unref();
  return async () => {
    clearInterval(timer);
    await pushing;
    await push();
  };
}
