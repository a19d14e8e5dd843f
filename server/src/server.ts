import { readFile } from 'node:fs/promises';
import { inspect as describe } from 'node:util';
import type { Server as GrpcServer } from '@grpc/grpc-js';
import fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import { inspect, ResidualSkipError } from 'residual-skip';
import { type Authenticate, authenticator } from './auth.js';
import { Bodies } from './bodies.js';
import { ElasticDepth, type SettingChange, settingChange } from './elastic.js';
import { asServerError, type ReportFailure, ServerError } from './errors.js';
import { createGrpcServer, type GrpcContext, grpcCredentials } from './grpc.js';
import { Inference } from './infer.js';
import { LivePage } from './live.js';
import type { Failed, Finished } from './messages.js';
import { Metrics } from './metrics.js';
import type { ModelOptions, ServedModel } from './model.js';
import { type ParsedOptions, parseServerOptions, type ServerOptions } from './options.js';
import { ModelRepository } from './repository.js';
import { addRestRoutes, type RestContext } from './rest.js';
import { modelOf, type Setting, settingsOf } from './settings.js';
import { Tracing } from './tracing.js';
import { packageVersion } from './version.js';

/** A listening server. */
export interface RunningServer {
  /** URL of REST, such as `http://127.0.0.1:8000`. */
  readonly url: string;
  /** `host:port`; null without gRPC. */
  readonly grpcAddress: string | null;
  readonly repository: ModelRepository;
  /** Refuses new requests, lets running ones end (up to `drainTimeout`), and frees everything. Idempotent. */
  close(): Promise<void>;
}

/** Paths that need no token, because probes have none. */
const OPEN_PATHS = new Set(['/v2/health/live', '/v2/health/ready']);

/** Is notified when requests end. */
interface Watcher {
  finished(finished: Finished): void;
  failed?(failed: Failed): void;
}

/**
 * Loads the models and serves them: Open Inference Protocol v2 over REST and gRPC, `/metrics`, and a live page at `/`.
 * Sends spans to OTEL_EXPORTER_OTLP_ENDPOINT if the environment sets it.
 * @throws ServerError INVALID_ARGUMENT (also for unusable files and ports) or NOT_FOUND; ResidualSkipError for an unusable
 * model or policy
 */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const parsed = parseServerOptions(options);
  const cleanups: (() => void | Promise<void>)[] = [];
  let draining = false;
  let closing: Promise<void> | undefined;
  const close = () => {
    draining = true;
    closing ??= cleanups.reduceRight((before, cleanup) => before.then(cleanup), Promise.resolve());
    return closing;
  };
  try {
    const tracing = await Tracing.fromEnvironment();
    if (tracing) cleanups.push(() => tracing.close());
    const authenticate = await authenticator(parsed.tokenFile);
    const core = await createCore(parsed, tracing);
    const { repository, inference, elastic, live, settings } = core;
    cleanups.push(() => repository.close());
    await repository.loadAll();
    checkUsed(settings ?? [], repository);

    const ready = () => !draining && repository.index().every(({ state }) => state !== 'LOADING');
    const reportFailure = failureLog(parsed.log);
    const app = await createApp(parsed, () => draining, reportFailure);
    cleanups.push(() => app.close());
    const bodies = new Bodies(parsed);
    const context = { bodies, repository, inference, version: packageVersion(), ready };
    await addRoutes(app, core, context, authenticate);
    const grpc = await listenGrpc(parsed, { ...context, authenticate, reportFailure });
    if (grpc) cleanups.push(() => shutDown(grpc.server));
    elastic?.start();
    live.start();
    const url = await app.listen({ host: parsed.host, port: parsed.port });
    cleanups.push(async () => {
      elastic?.stop();
      const late = new Promise<void>((resolve) => setTimeout(resolve, parsed.drainTimeout).unref());
      // Disconnect clients that haven't sent their whole request by then or that don't read the answer.
      void late.then(() => {
        app.server.closeAllConnections();
        grpc?.server.forceShutdown();
      });
      await Promise.race([inference.queue.drain(), late]);
      live.stop();
      app.server.closeIdleConnections();
    });
    return { url, grpcAddress: grpc?.address ?? null, repository, close };
  } catch (error) {
    await close();
    throw asStartError(error);
  }
}

interface Core {
  /** Those that were asked for. */
  readonly settings: readonly Setting[] | undefined;
  readonly repository: ModelRepository;
  readonly inference: Inference;
  readonly metrics: Metrics;
  readonly live: LivePage;
  /** Null without a target. */
  readonly elastic: ElasticDepth | null;
}

/** Creates the parts that both protocols share, and connects them to their watchers. */
async function createCore(parsed: ParsedOptions, tracing: Tracing | null): Promise<Core> {
  const { threads, capacity, maxItems, inputLimit, targetP99, targetQueue, shadow, log } = parsed;
  const { policies } = parsed;
  const settings = policies && (await settingsOf(policies));
  const originals = new Map<string, string>();
  for (const path of parsed.originals) originals.set((await inspect(path)).sha256, path);
  const watchers: Watcher[] = [];
  const report = (model: ServedModel, change: SettingChange) => {
    metrics.settingChanged(model);
    live.changed(change);
    const { from, to, promise, reason } = change;
    log?.({ event: 'setting', model: model.name, from, to, promise, reason });
  };
  const onTrip: ModelOptions['onTrip'] = (model, from, { setting, checks, disagreements }) => {
    const limit = setting.promise?.limit;
    log?.({ event: 'trip', model: model.name, setting: setting.name, limit, checks, disagreements });
    const saw = `${disagreements} of ${checks} checked answers of ${setting.name} were changed`;
    if (from !== model.setting) report(model, settingChange(model, from, saw));
  };
  const repository = new ModelRepository(parsed.folders, async () => ({
    settings,
    inFull: policies?.includes('full') ?? false,
    ...{ originals, threads, shadow, onTrip },
  }));
  const inference = new Inference(repository, {
    ...{ capacity, threads, maxItems, inputLimit },
    onFinished: (finished) => {
      for (const watcher of watchers) watcher.finished(finished);
    },
    onFailed: (failed) => {
      for (const watcher of watchers) watcher.failed?.(failed);
    },
  });
  const metrics = new Metrics(repository, () => inference);
  const live = new LivePage(repository, () => inference);
  const targets = { targetP99Ms: targetP99, targetQueue };
  const elastic =
    targetP99 === undefined && targetQueue === undefined
      ? null
      : new ElasticDepth(repository, inference, targets, report);
  watchers.push(metrics, live);
  if (elastic) watchers.push(elastic);
  if (tracing) watchers.push(tracing);
  return { settings, repository, inference, metrics, live, elastic };
}

async function addRoutes(
  app: FastifyInstance,
  { metrics, live }: Core,
  context: RestContext,
  authenticate: Authenticate,
): Promise<void> {
  app.addHook('onRequest', (request, _reply, done) => {
    if (!OPEN_PATHS.has(request.url)) authenticate(request.headers.authorization);
    done();
  });
  addRestRoutes(app, context);
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.text()),
  );
  await live.addRoutes(app);
}

/** Throws POLICY_MISMATCH for a policy that is tied to a model that isn't served. */
function checkUsed(settings: readonly Setting[], repository: ModelRepository): void {
  const served = repository.loaded().map(({ session }) => session.model.sha256);
  const missing = settings.map(modelOf).find((sha256) => sha256 !== undefined && !served.includes(sha256));
  if (missing === undefined) return;
  throw new ResidualSkipError(
    'POLICY_MISMATCH',
    `--policy: it was made for the model with SHA-256 ${missing}, which is not served; serve that model, or calibrate another policy`,
  );
}

/** Ports in use and unreadable files are errors of whoever starts the server. */
function asStartError(error: unknown): unknown {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (error instanceof ServerError || !/^(E[A-Z]+|ERR_OSSL.*)$/.test(code)) return error;
  return new ServerError('INVALID_ARGUMENT', `server: it can't start (${message})`, { cause: error });
}

function shutDown(server: GrpcServer): Promise<void> {
  return new Promise((resolve) => server.tryShutdown(() => resolve()));
}

/** Logs failures that are the server's own, with what caused them. */
function failureLog(log: ParsedOptions['log']): ReportFailure {
  return (error, request) => {
    // Without a cause, a 5xx is an answer on purpose: of a server that drains, for a model that isn't loaded.
    if (error.http < 500 || (error.code !== 'INTERNAL' && error.cause === undefined)) return;
    log?.({ event: 'failure', request, code: error.code, error: describe(error.cause ?? error) });
  };
}

async function createApp(
  { bodyLimit, requestTimeout, tls }: ParsedOptions,
  draining: () => boolean,
  reportFailure: ReportFailure,
): Promise<FastifyInstance> {
  const https = tls && { cert: await readFile(tls.cert), key: await readFile(tls.key) };
  const app = fastify({
    bodyLimit,
    requestTimeout,
    // The hook below answers instead, as JSON and with Retry-After.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    [https ? 'https' : 'http']: { ...https, connectionsCheckingInterval: Math.min(1000, requestTimeout) },
  } as object) as unknown as FastifyInstance;
  app.server.headersTimeout = requestTimeout;
  app.addHook('onRequest', (_request, reply, done) => {
    if (draining()) reply.raw.setHeader('connection', 'close');
    done();
  });
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const failure = failureOf(error);
    reportFailure(failure, `${request.method} ${request.url}`);
    if (failure.options.retryAfter !== undefined) reply.header('retry-after', failure.options.retryAfter);
    if (failure.code === 'UNAVAILABLE') reply.header('retry-after', 1);
    if (failure.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Basic realm="residual-skip"');
    // Otherwise the unread rest of a refused body would be parsed as the next request.
    if (['TOO_LARGE', 'BUSY'].includes(failure.code) && !request.raw.complete)
      reply.header('connection', 'close');
    request.raw.resume();
    return reply.code(failure.http).send({ error: failure.message, code: failure.code });
  });
  app.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .send({ error: `path ${request.url}: there is no ${request.method} of it`, code: 'NOT_FOUND' }),
  );
  return app;
}

/** Fastify's own errors have a status code. */
function failureOf(error: FastifyError): ServerError {
  if (error.statusCode === 413)
    return new ServerError('TOO_LARGE', 'body: it is longer than this server takes; send smaller batches');
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new ServerError('INVALID_ARGUMENT', `request: ${error.message}`);
  return asServerError(error);
}

async function listenGrpc(
  { grpcPort, host, tls, bodyLimit, jsonLimit, requestTimeout, maxStreams }: ParsedOptions,
  context: Omit<GrpcContext, 'bodyLimit' | 'jsonLimit' | 'requestTimeout' | 'maxStreams'>,
): Promise<{ server: GrpcServer; address: string } | undefined> {
  if (grpcPort === null) return undefined;
  const server = createGrpcServer({ ...context, bodyLimit, jsonLimit, requestTimeout, maxStreams });
  const credentials = await grpcCredentials(tls);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${grpcPort}`, credentials, (error, bound) => {
      if (!error) return resolve(bound);
      const message = `port ${grpcPort}: gRPC can't use it on ${host} (${error.message}); choose another with --grpc-port`;
      reject(new ServerError('INVALID_ARGUMENT', message, { cause: error }));
    });
  });
  return { server, address: `${host}:${port}` };
}
