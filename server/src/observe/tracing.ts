import type { Context, Span, Tracer } from '@opentelemetry/api';
import { ServerError } from '../errors.js';
import type { Failed, Finished, InferRequest } from '../inference/messages.js';
import { packageVersion } from '../models/version.js';

/** The OpenTelemetry variables for the endpoint. The exporter reads these and all other variables itself. */
const ENDPOINTS = ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT'] as const;

async function loadPackages() {
  const [api, core, exporter, resources, sdk] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/core'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace-base'),
  ]);
  return { api, core, exporter, resources, sdk };
}
type Packages = Awaited<ReturnType<typeof loadPackages>>;

/**
 * OpenTelemetry spans of requests: `infer MODEL`, a child of the caller's span if the request names one, with the times
 * before the queue (`prepare`), in the queue (`queue`) and in the engine (`compute`) as child spans.
 */
export class Tracing {
  readonly #packages: Packages;
  readonly #provider: InstanceType<Packages['sdk']['BasicTracerProvider']>;
  readonly #tracer: Tracer;

  private constructor(packages: Packages) {
    const { exporter, resources, sdk } = packages;
    this.#packages = packages;
    this.#provider = new sdk.BasicTracerProvider({
      resource: resources.resourceFromAttributes({
        'service.name': process.env.OTEL_SERVICE_NAME ?? 'residual-skip',
        'service.version': packageVersion(),
      }),
      spanProcessors: [new sdk.BatchSpanProcessor(new exporter.OTLPTraceExporter())],
    });
    this.#tracer = this.#provider.getTracer('residual-skip-server', packageVersion());
  }

  /**
   * Null unless the environment names an endpoint.
   * @throws ServerError INVALID_ARGUMENT if it does and the OpenTelemetry packages are missing
   */
  static async fromEnvironment(): Promise<Tracing | null> {
    const named = ENDPOINTS.find((name) => process.env[name]);
    if (!named) return null;
    try {
      return new Tracing(await loadPackages());
    } catch (cause) {
      throw new ServerError(
        'INVALID_ARGUMENT',
        `variable ${named}: the packages that send spans can't be loaded; install them with "npm install @opentelemetry/api @opentelemetry/core @opentelemetry/exporter-trace-otlp-http @opentelemetry/resources @opentelemetry/sdk-trace-base"`,
        { cause },
      );
    }
  }

  finished({ request, started, model, setting, items, queueMs, callMs, callItems }: Finished): void {
    const { name, version } = model;
    const { span, context } = this.#begin(request, name, started);
    const skipped = items.reduce((sum, { blocks }) => sum + blocks.filter(({ ran }) => !ran).length, 0);
    span.setAttributes({
      'residual_skip.version': version,
      'residual_skip.setting': setting.name,
      ...(setting.promise && { 'residual_skip.promised_limit': setting.promise.limit }),
      'residual_skip.items': items.length,
      'residual_skip.call_items': callItems,
      'residual_skip.blocks_skipped': skipped,
    });
    const end = performance.now();
    const run = Math.max(started, end - callMs);
    const queued = Math.max(started, run - queueMs);
    for (const [what, from, to] of [
      ['prepare', started, queued],
      ['queue', queued, run],
      ['compute', run, end],
    ] as const) {
      this.#tracer.startSpan(what, { startTime: epoch(from) }, context).end(epoch(to));
    }
    span.end(epoch(end));
  }

  failed({ request, started, model, error }: Failed): void {
    if (!request) return;
    const { span } = this.#begin(request, model?.name ?? request.model, started);
    span.setAttribute('error.type', error.code);
    span.setStatus({ code: this.#packages.api.SpanStatusCode.ERROR, message: error.message });
    span.end();
  }

  /** Sends the remaining spans. An unreachable collector is not an error. */
  async close(): Promise<void> {
    await this.#provider.shutdown().catch(() => {});
  }

  #begin(
    { traceparent, id }: InferRequest,
    model: string,
    started: number,
  ): { span: Span; context: Context } {
    const { api, core } = this.#packages;
    const carrier = { traceparent };
    const parent = new core.W3CTraceContextPropagator().extract(
      api.ROOT_CONTEXT,
      carrier,
      api.defaultTextMapGetter,
    );
    const span = this.#tracer.startSpan(
      `infer ${model}`,
      {
        kind: api.SpanKind.SERVER,
        startTime: epoch(started),
        attributes: { 'residual_skip.model': model, ...(id && { 'residual_skip.request_id': id }) },
      },
      parent,
    );
    return { span, context: api.trace.setSpan(parent, span) };
  }
}

/** Converts a `performance.now()` time to milliseconds since 1970. */
function epoch(moment: number): number {
  return performance.timeOrigin + moment;
}
