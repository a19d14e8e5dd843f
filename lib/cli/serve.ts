import { setFlagsFromString } from 'node:v8';
import type { Command } from 'commander';
import { ResidualSkipError } from '../errors.js';
import { type Io, paint } from './io.js';
import { addServeOptions, completeOptions, type ServeOptions } from './serve-options.js';
import { percent } from './table.js';

/** A model, and the setting in which it runs now. */
interface Served {
  readonly name: string;
  readonly version: string;
  readonly setting: {
    readonly name: string;
    readonly file: string | null;
    readonly promise: { readonly metric: string; readonly limit: number; readonly confidence: number } | null;
  };
}

/** The part of the package residual-skip-server that this command uses. */
interface ServerModule {
  createServer(options: object): Promise<{
    readonly url: string;
    readonly grpcAddress: string | null;
    readonly controlUrl: string | null;
    readonly repository: { loaded(): readonly Served[] };
    reload(): Promise<void>;
    close(): Promise<void>;
  }>;
}

const SERVER = 'residual-skip-server';

/**
 * V8 counts what Node receives from a socket as heap. With its usual limit, photographs cause a collection of the whole heap
 * after every few requests; with this one, the cheap collections of new objects come first.
 */
const HEAP = '--heap-growing-percent=300';

export function addServeCommand(program: Command, io: Io): void {
  addServeOptions(
    program
      .command('serve')
      .description('serve models: Open Inference Protocol v2 over REST and gRPC, metrics, and a live page'),
  ).action((folders: string[], _options: unknown, command: Command) => {
    const complete = completeOptions(folders, command, process.env);
    return serve(complete.folders, complete.options, io);
  });
}

/** Loads the package residual-skip-server; `T` is the part of it that `command` uses. */
export async function loadServer<T>(command: string): Promise<T> {
  try {
    return (await import(SERVER)) as T;
  } catch (cause) {
    throw new ResidualSkipError(
      'MISSING_DEPENDENCY',
      `command ${command}: it needs the package "${SERVER}", which can't be loaded here; install it with "npm install ${SERVER}"`,
      { cause },
    );
  }
}

/** A refusal of the server to start is the user's mistake, not a defect, unless it is an internal error. */
function asUsers(error: unknown): unknown {
  const { name, code, message } = error as { name?: unknown; code?: unknown; message: string };
  if (name !== 'ServerError' || code === 'INTERNAL') return error;
  return new ResidualSkipError('INVALID_ARGUMENT', message, { cause: error });
}

function wordServed({ name, setting: { name: policy, file, promise } }: Served): string {
  const of = file === null ? '' : ` of ${file}`;
  const limit = promise && `limit ${percent(promise.limit, 2)} (${promise.metric})`;
  const promised = limit ? `${limit} with ${percent(promise.confidence, 0)} confidence` : 'no promise';
  return `${name}: policy ${policy}${of}, ${promised}\n`;
}

/** The server's option `audit`. */
function auditOf(options: ServeOptions) {
  const { audit: folder, auditKeep, auditSize, auditRotate, auditInputs, auditKey } = options;
  if (folder === undefined) {
    const others = [auditKeep, auditSize, auditRotate, auditInputs, auditKey];
    if (others.every((one) => one === undefined)) return undefined;
    throw new ResidualSkipError('INVALID_ARGUMENT', '--audit: it is missing; name a folder for the records');
  }
  return {
    ...{ folder, ...auditRotate },
    ...(auditKeep && { keep: auditKeep }),
    ...(auditSize && { keepBytes: auditSize }),
    ...(auditInputs && { inputs: auditInputs }),
    ...(auditKey && { key: auditKey }),
  };
}

async function serve(folders: readonly string[], options: ServeOptions, io: Io): Promise<void> {
  const { host, policy, threads, targetP99, targetQueue, shadow, maxWaiting, jsonLimit, json } = options;
  const { tokenFile, tlsCert, tlsKey, tlsClientCa } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      '--tls-cert: it needs --tls-key, and the reverse; give both',
    );
  }
  const audit = auditOf(options);
  const { createServer } = await loadServer<ServerModule>('serve');
  setFlagsFromString(HEAP);
  const log = (entry: object) => io.err(`${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`);
  const starting = createServer({
    folders,
    host,
    ...(options.insecure && { insecure: true }),
    port: options.port,
    grpcPort: options.grpcPort === false ? null : options.grpcPort,
    ...(options.controlPort !== undefined && { controlPort: options.controlPort }),
    ...(policy && { policies: policy }),
    capacity: maxWaiting,
    ...(options.original && { originals: options.original }),
    ...(threads && { threads }),
    ...(targetP99 && { targetP99 }),
    ...(targetQueue && { targetQueue }),
    ...(shadow && { shadow }),
    ...(options.maxDisagreement && { maxDisagreement: options.maxDisagreement }),
    ...(jsonLimit && { jsonLimit }),
    ...(tokenFile && { tokenFile }),
    ...(tlsCert && { tls: { cert: tlsCert, key: tlsKey, ...(tlsClientCa && { clientCa: tlsClientCa }) } }),
    ...(options.maxConnections && { maxConnections: options.maxConnections }),
    ...(options.accessLog && { accessLog: true }),
    ...(options.poll && { poll: options.poll }),
    ...(audit && { audit }),
    log,
  });
  const server = await starting.catch((error: unknown) => {
    throw asUsers(error);
  });
  const { url, grpcAddress, controlUrl } = server;
  const models = server.repository.loaded();
  if (json) {
    const served = models.map(({ name, version, setting: { name: policy, file, promise } }) => ({
      ...{ name, version, policy, file, promise },
    }));
    io.out(`${JSON.stringify({ url, grpcAddress, controlUrl, models: served })}\n`);
  } else {
    io.out(
      `${paint(io, 'bold', url)}: REST; gRPC: ${grpcAddress ?? 'off'}. /metrics and a live page: ${controlUrl ?? url}. Ctrl-C ends it.\n${models.map(wordServed).join('')}`,
    );
  }
  const reload = () =>
    server.reload().then(
      () => log({ event: 'reload' }),
      ({ message }: Error) => log({ event: 'reload', error: message }),
    );
  process.on('SIGHUP', reload);
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  if (!json) io.err('draining: requests under way end, new ones are refused\n');
  process.off('SIGHUP', reload);
  await server.close();
}
