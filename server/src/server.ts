import type { Server as NetServer } from 'node:net';
import type { Server as TlsServer } from 'node:tls';
import type { Server as GrpcServer } from '@grpc/grpc-js';
import { inspect, ResidualSkipError, returnFreedMemory } from 'residual-skip';
import { authenticator } from './auth.js';
import { ServerError } from './errors.js';
import { createGrpcServer, type GrpcContext, grpcCredentials } from './grpc/grpc.js';
import { createApp } from './http/app.js';
import { Bodies } from './http/bodies.js';
import { Connections } from './http/connections.js';
import { ControlPlane } from './http/control.js';
import { LivePage } from './http/live.js';
import { isLoopback } from './http/origin.js';
import { addRestRoutes, CONTROL } from './http/rest.js';
import { restInference } from './http/rest-infer.js';
import { type Pem, readPem } from './http/tls.js';
import { Inference } from './inference/infer.js';
import type { Failed, Finished } from './inference/messages.js';
import { ElasticDepth, type SettingChange, settingChange } from './models/elastic.js';
import type { ModelOptions, ServedModel } from './models/model.js';
import { ModelRepository } from './models/repository.js';
import { modelOf, type Setting, settingsOf } from './models/settings.js';
import { packageVersion } from './models/version.js';
import { AuditLogs } from './observe/audit.js';
import { Failures } from './observe/failures.js';
import { Metrics } from './observe/metrics.js';
import { pushMetrics } from './observe/otlp-metrics.js';
import { Tracing } from './observe/tracing.js';
import { type ParsedOptions, parseServerOptions, type ServerOptions } from './options.js';

/** A listening server. */
export interface RunningServer {
  /** URL of REST, such as `http://127.0.0.1:8000`. */
  readonly url: string;
  /** `host:port`; null without gRPC. */
  readonly grpcAddress: string | null;
  /** URL of the control plane; null where it has no port of its own. */
  readonly controlUrl: string | null;
  readonly repository: ModelRepository;
  /** Reads tokens and certificates again, for requests and connections from then on. Errors as createServer; then the old ones stay. */
  reload(): Promise<void>;
  /** Refuses new requests, lets running ones end (up to `drainTimeout`), and frees everything. Idempotent. */
  close(): Promise<void>;
}

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
  returnFreedMemory();
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
    const { authenticate, reload } = await authenticator(parsed.tokenFile, isLoopback(parsed.host));
    const pem = await readPem(parsed.tls);
    const core = await createCore(parsed, tracing);
    const { repository, inference, elastic, live, metrics, settings, audits } = core;
    if (audits) cleanups.push(() => audits.close());
    cleanups.push(() => repository.close());
    await repository.loadAll();
    await checkUsed(settings ?? [], repository);

    const ready = () => !draining && repository.isReady();
    const reportFailure = core.failures.report;
    const control = new ControlPlane(parsed.controlPort !== undefined);
    const bodies = new Bodies(parsed);
    const context = { bodies, repository, inference, version: packageVersion(), ready, reportFailure };
    const infer = restInference(context);
    const app = createApp(parsed, {
      ...{ pem, control, draining: () => draining, authenticate, reportFailure, infer },
    });
    cleanups.push(() => app.close());
    addRestRoutes(app, context);
    app.get('/metrics', CONTROL, async (_request, reply) =>
      reply.type(metrics.registry.contentType).send(await metrics.text()),
    );
    await live.addRoutes(app);
    const grpc = await listenGrpc(parsed, pem, {
      ...{ ...context, authenticate, control, draining: () => draining },
      accessLog: parsed.accessLog ? parsed.log : undefined,
    });
    if (grpc) cleanups.push(() => shutDown(grpc));
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
      app.closeSilent();
    });
    const reloadAll = async () => {
      await reload();
      const renewed = await readPem(parsed.tls);
      if (!renewed) return;
      for (const server of [app.server, ...(grpc?.servers ?? [])])
        (server as unknown as TlsServer).setSecureContext(renewed);
    };
    const endPush = pushMetrics(metrics.registry, () => metrics.text(), parsed.log);
    if (endPush) cleanups.push(endPush);
    if (parsed.poll !== undefined) cleanups.push(repository.poll(parsed.poll));
    const { controlPort } = parsed;
    const controlUrl = controlPort === undefined ? null : await control.listen(app, controlPort);
    cleanups.push(() => control.close());
    return { url, grpcAddress: grpc?.address ?? null, controlUrl, repository, reload: reloadAll, close };
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
  readonly failures: Failures;
  readonly metrics: Metrics;
  readonly live: LivePage;
  /** Undefined without records. */
  readonly audits: AuditLogs | undefined;
  /** Null without a target. */
  readonly elastic: ElasticDepth | null;
}

/** Creates the parts that both protocols share, and connects them to their watchers. */
async function createCore(parsed: ParsedOptions, tracing: Tracing | null): Promise<Core> {
  const { threads, capacity, maxItems, maxRequestItems, inputLimit } = parsed;
  const { policies, targetP99, targetQueue, shadow, maxDisagreement, audit, log } = parsed;
  const settings = policies && (await settingsOf(policies));
  const originals = new Map<string, string>();
  for (const path of parsed.originals) originals.set((await inspect(path)).sha256, path);
  const audits = audit && new AuditLogs(audit, log);
  const watchers: Watcher[] = [];
  const report = (model: ServedModel, change: SettingChange) => {
    metrics.settingChanged(model);
    live.changed(change);
    const { from, to, promise, reason } = change;
    log?.({ event: 'setting', model: model.name, from, to, promise, reason });
  };
  const onTrip: ModelOptions['onTrip'] = (model, from, { group, setting, checks, disagreements }) => {
    const limit = setting.promise?.limit;
    const of = { model: model.name, ...(group && { group }), setting: setting.name };
    log?.({ event: 'trip', ...of, limit, checks, disagreements });
    const saw = `${disagreements} of ${checks} checked answers of ${setting.name} were changed`;
    // What a group has by itself is no change of the model's.
    if (group === '' && from !== model.setting) report(model, settingChange(model, from, saw));
  };
  const onRearm: ModelOptions['onRearm'] = (model, from, { group, setting, checks, disagreements }) => {
    const of = { model: model.name, ...(group && { group }), setting: setting.name };
    log?.({ event: 'rearm', ...of, checks, disagreements });
    const saw = `${disagreements} of ${checks} answers of ${setting.name} on trial were changed`;
    if (group === '' && from !== model.setting) report(model, settingChange(model, from, saw));
  };
  const onLoad: ModelOptions['onLoad'] = (model) => {
    if (policies?.includes('full') === false && model.settings.length === 1)
      log?.({ event: 'full', model: model.name, reason: 'none of the policies is for this model' });
    for (const setting of model.settings.filter((one) => model.isWatched(one) === false)) {
      const { limit, metric } = setting.promise!;
      const reason = whyUnwatched(setting, parsed);
      log?.({ event: 'unwatched', model: model.name, setting: setting.name, metric, limit, reason });
    }
  };
  const repository = new ModelRepository(
    parsed.folders,
    async ({ name, version }) => ({
      // A policy file may have changed with its model.
      settings: policies && (await settingsOf(policies)),
      inFull: policies?.includes('full') ?? false,
      ...{ originals, threads, shadow, maxDisagreement, onTrip, onRearm, onLoad },
      audit: audits?.observer(name, version),
    }),
    (model, { message }) => log?.({ event: 'load', model, error: message }),
  );
  const inference = new Inference(repository, {
    ...{ capacity, threads, maxItems, maxRequestItems, inputLimit, targetP99 },
    onFinished: (finished) => {
      for (const watcher of watchers) watcher.finished(finished);
    },
    onFailed: (failed) => {
      for (const watcher of watchers) watcher.failed?.(failed);
    },
  });
  const failures = new Failures(log);
  const metrics = new Metrics(repository, () => inference, failures, audits);
  const live = new LivePage(repository, () => inference);
  const targets = { targetP99Ms: targetP99, targetQueue };
  const elastic =
    targetP99 === undefined && targetQueue === undefined
      ? null
      : new ElasticDepth(repository, inference, targets, report);
  watchers.push(metrics, live);
  if (elastic) watchers.push(elastic);
  if (tracing) watchers.push(tracing);
  return { settings, repository, inference, failures, metrics, live, elastic, audits };
}

function whyUnwatched(setting: Setting, { shadow }: ParsedOptions): string {
  if (shadow === 0) return 'no items run in full to test it (--shadow 0)';
  if (setting.promise?.metric === 'accuracy')
    return 'only labels can test it; --max-disagreement limits the changed answers instead';
  return 'it is about the answers of another network; give it with --original';
}

/** Throws POLICY_MISMATCH for a policy that is tied to a model that isn't served. */
async function checkUsed(settings: readonly Setting[], repository: ModelRepository): Promise<void> {
  const named = settings.map(modelOf).filter((sha256) => sha256 !== undefined);
  if (named.length === 0) return;
  const served = await Promise.all(repository.loaded().map(({ session }) => session.sha256()));
  const missing = named.find((sha256) => !served.includes(sha256));
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

/** Between two looks at whether calls are under way. */
const CALLS_MS = 20;

/** tryShutdown would also wait for connections that have no calls, and whose clients may never close them. */
async function shutDown({ server, active, connections }: ListeningGrpc): Promise<void> {
  const done = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const timer = setInterval(() => {
    if (active.calls === 0) connections.closeAll();
  }, CALLS_MS);
  await done.finally(() => clearInterval(timer));
}

/** The servers of a gRPC server that is bound, which grpc-js keeps to itself. */
function serversOf(server: GrpcServer): readonly NetServer[] {
  return [
    ...(server as unknown as { readonly http2Servers: ReadonlyMap<NetServer, unknown> }).http2Servers.keys(),
  ];
}

interface ListeningGrpc {
  readonly server: GrpcServer;
  readonly active: { readonly calls: number };
  readonly servers: readonly NetServer[];
  readonly connections: Connections;
  readonly address: string;
}

async function listenGrpc(
  { grpcPort, host, bodyLimit, jsonLimit, requestTimeout, maxStreams, maxConnections }: ParsedOptions,
  pem: Pem | undefined,
  context: Omit<
    GrpcContext,
    'bodyLimit' | 'jsonLimit' | 'requestTimeout' | 'maxStreams' | 'active' | 'connections'
  >,
): Promise<ListeningGrpc | undefined> {
  if (grpcPort === null) return undefined;
  const active = { calls: 0 };
  const connections = new Connections(maxConnections);
  const own = { bodyLimit, jsonLimit, requestTimeout, maxStreams, active, connections };
  const server = createGrpcServer({ ...context, ...own });
  const credentials = grpcCredentials(pem);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${grpcPort}`, credentials, (error, bound) => {
      if (!error) return resolve(bound);
      const message = `port ${grpcPort}: gRPC can't use it on ${host} (${error.message}); choose another with --grpc-port`;
      reject(new ServerError('INVALID_ARGUMENT', message, { cause: error }));
    });
  });
  const servers = serversOf(server);
  for (const one of servers) connections.watch(one);
  return { server, active, connections, servers, address: `${host}:${port}` };
}
