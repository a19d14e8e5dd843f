import { readFile } from 'node:fs/promises';
import type { Server as GrpcServer } from '@grpc/grpc-js';
import fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import { authenticator } from './auth.js';
import { ElasticDepth, type SettingChange, settingChange } from './elastic.js';
import { asServerError, ServerError } from './errors.js';
import { createGrpcServer, grpcCredentials } from './grpc.js';
import { type Finished, Inference } from './infer.js';
import { LivePage } from './live.js';
import { Metrics } from './metrics.js';
import type { ModelOptions, ServedModel } from './model.js';
import { type ParsedOptions, parseServerOptions, type ServerOptions } from './options.js';
import { ModelRepository } from './repository.js';
import { addRestRoutes } from './rest.js';
import { settingsOf } from './settings.js';
import { packageVersion } from './version.js';

/** A server that listens. */
export interface RunningServer {
  /** Of REST, `http://127.0.0.1:8000`. */
  readonly url: string;
  /** `host:port`; null without gRPC. */
  readonly grpcAddress: string | null;
  readonly repository: ModelRepository;
  /** Refuses new requests, lets those under way end (up to `drainTimeout`), and frees everything. Idempotent. */
  close(): Promise<void>;
}

/** Paths that need no token: probes have none. */
const OPEN_PATHS = new Set(['/v2/health/live', '/v2/health/ready']);

/**
 * Loads the models and serves them: Open Inference Protocol v2 over REST and gRPC, `/metrics`, and a live page at `/`.
 * @throws ServerError INVALID_ARGUMENT, NOT_FOUND; ResidualSkipError for a model or policy that can't be used
 */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const parsed = parseServerOptions(options);
  const { threads, capacity, mostItems, targetP99, targetQueue, shadow, log } = parsed;
  const authenticate = await authenticator(parsed.tokenFile);
  const settings = await settingsOf(parsed.policies);
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
  const repository = new ModelRepository(parsed.folders, async () => ({ settings, threads, shadow, onTrip }));
  const watchers: {
    finished(finished: Finished): void;
    failed?(model: ServedModel | null, error: ServerError): void;
  }[] = [];
  const inference = new Inference(repository, {
    ...{ capacity, threads, mostItems },
    onFinished: (finished) => {
      for (const watcher of watchers) watcher.finished(finished);
    },
    onFailed: (model, error) => {
      for (const watcher of watchers) watcher.failed?.(model, error);
      if (error.code === 'INTERNAL')
        log?.({ event: 'failure', model: model?.name, error: String(error.cause ?? error) });
    },
  });
  const metrics = new Metrics(repository, () => inference);
  const live = new LivePage(repository, () => inference);
  const elastic = new ElasticDepth(
    repository,
    inference,
    { threads, targetP99Ms: targetP99, targetQueue },
    report,
  );
  watchers.push(metrics, live);

  await repository.loadAll();
  const elasticOn = targetP99 !== undefined || targetQueue !== undefined;
  if (elasticOn) {
    watchers.push(elastic);
    elastic.start();
  }
  live.start();

  let draining = false;
  const ready = () => !draining && repository.index().every(({ state }) => state !== 'LOADING');
  const app = await createApp(parsed, () => draining);
  app.addHook('onRequest', async (request) => {
    if (!OPEN_PATHS.has(request.url)) authenticate(request.headers.authorization);
  });
  addRestRoutes(app, { repository, inference, version: packageVersion(), ready });
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
  await live.addRoutes(app);
  const grpc = await listenGrpc(parsed, {
    repository,
    inference,
    version: packageVersion(),
    ready,
    authenticate,
  });
  const url = await app.listen({ host: parsed.host, port: parsed.port });

  let closing: Promise<void> | undefined;
  const close = async () => {
    draining = true;
    elastic.stop();
    const late = new Promise<void>((resolve) => setTimeout(resolve, parsed.drainTimeout).unref());
    await Promise.race([inference.queue.drain(), late]);
    live.stop();
    app.server.closeIdleConnections();
    await app.close();
    await new Promise<void>((resolve) => (grpc ? grpc.server.tryShutdown(() => resolve()) : resolve()));
    await repository.close();
  };
  return {
    url,
    grpcAddress: grpc?.address ?? null,
    repository,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

async function createApp(
  { bodyLimit, requestTimeout, tls }: ParsedOptions,
  draining: () => boolean,
): Promise<FastifyInstance> {
  const https = tls && { cert: await readFile(tls.cert), key: await readFile(tls.key) };
  const app = fastify({
    bodyLimit,
    requestTimeout,
    // Answered by the hook below, as JSON and with Retry-After.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    ...(https && { https }),
  } as object) as unknown as FastifyInstance;
  app.server.headersTimeout = requestTimeout;
  app.addHook('onRequest', async (_request, reply) => {
    if (draining()) reply.header('connection', 'close');
  });
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const failure = failureOf(error);
    if (failure.options.retryAfter !== undefined) reply.header('retry-after', failure.options.retryAfter);
    if (failure.code === 'UNAVAILABLE') reply.header('retry-after', 1);
    if (failure.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Basic realm="residual-skip"');
    // What was not read of a refused body would be taken for the next request.
    if (failure.code === 'TOO_LARGE') reply.header('connection', 'close');
    request.raw.resume();
    return reply.code(failure.http).send({ error: failure.message, code: failure.code });
  });
  app.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ error: `there is no ${request.method} ${request.url}`, code: 'NOT_FOUND' }),
  );
  return app;
}

/** Fastify's own errors have a status. */
function failureOf(error: FastifyError): ServerError {
  if (error.statusCode === 413)
    return new ServerError('TOO_LARGE', 'the body is larger than this server takes');
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new ServerError('INVALID_ARGUMENT', error.message);
  return asServerError(error);
}

async function listenGrpc(
  { grpcPort, host, tls, bodyLimit }: ParsedOptions,
  context: Omit<Parameters<typeof createGrpcServer>[0], 'bodyLimit'>,
): Promise<{ server: GrpcServer; address: string } | undefined> {
  if (grpcPort === null) return undefined;
  const server = createGrpcServer({ ...context, bodyLimit });
  const credentials = await grpcCredentials(tls);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${grpcPort}`, credentials, (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { server, address: `${host}:${port}` };
}
