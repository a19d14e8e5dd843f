import { setFlagsFromString } from 'node:v8';
import { type Command, InvalidArgumentError } from 'commander';
import { ResidualSkipError } from '../errors.js';
import { type Io, paint } from './io.js';
import { fraction, positiveInteger } from './options.js';
import { percent } from './table.js';

interface ServeOptions {
  readonly host: string;
  readonly insecure?: boolean;
  readonly port: number;
  readonly grpcPort: number | false;
  readonly policy?: readonly string[];
  readonly original?: readonly string[];
  readonly threads?: number;
  readonly targetP99?: number;
  readonly targetQueue?: number;
  readonly shadow?: number;
  readonly maxDisagreement?: number;
  readonly maxWaiting: number;
  readonly jsonLimit?: number;
  readonly tokenFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly json?: boolean;
}

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
    readonly repository: { loaded(): readonly Served[] };
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
  program
    .command('serve')
    .description('serve models: Open Inference Protocol v2 over REST and gRPC, metrics, and a live page')
    .argument(
      '<folders...>',
      'folder of a model, of its versions (1/, 2/, ...), or of several models; or an ONNX file',
    )
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--insecure', 'listen beyond loopback without tokens')
    .option('--port <n>', 'port of REST; 0 for any that is free', port, 8000)
    .option('--grpc-port <n>', 'port of gRPC', port, 8001)
    .option('--no-grpc-port', 'without gRPC')
    .option(
      '--policy <policies...>',
      "policy files, each for the model that it was made for, 'full' (run everything) or 'model' (the file's own gates and exits " +
        "decide); default: policy.json of each model's folder, or else 'model'",
    )
    .option(
      '--original <models...>',
      'float forms of 8-bit models: they verify the answers of policies that name them',
    )
    .option('--threads <n>', 'worker threads (default: what the process may use)', positiveInteger)
    .option(
      '--target-p99 <time>',
      'latency that 99 % of requests should keep, such as 20ms: skip more to keep it',
      duration,
    )
    .option('--target-queue <n>', 'or requests that may wait before models skip more', positiveInteger)
    .option(
      '--shadow <share>',
      'share of items that is run in full too, to watch over promises (default: 0.01)',
      fraction,
    )
    .option(
      '--max-disagreement <share>',
      'share of answers that settings may change whose promise is about accuracy, which nothing watches otherwise',
      fraction,
    )
    .option(
      '--max-waiting <n>',
      'requests that may wait; others are answered with 429',
      positiveInteger,
      1024,
    )
    .option('--json-limit <bytes>', 'longest JSON of a request (default: 1048576)', positiveInteger)
    .option(
      '--token-file <file>',
      "file with a token on each line, of which requests need one; behind it 'priority' or 'control' if it may",
    )
    .option('--tls-cert <file>', 'PEM file of the certificate')
    .option('--tls-key <file>', 'PEM file of the key')
    .option('--json', 'print JSON lines')
    .action((folders: string[], options: ServeOptions) => serve(folders, options, io));
}

function port(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 65535) return value;
  throw new InvalidArgumentError('It must be a port, 0 to 65535.');
}

/** Parses `20ms`, `0.5s` or a number of milliseconds, for commander; returns milliseconds. */
export function duration(text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(text.trim()) ?? [];
  const value = Number(digits) * (unit === 's' ? 1000 : 1);
  if (value > 0) return value;
  throw new InvalidArgumentError('It must be a time such as 20ms or 0.5s.');
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

async function serve(folders: readonly string[], options: ServeOptions, io: Io): Promise<void> {
  const { host, policy, threads, targetP99, targetQueue, shadow, maxWaiting, jsonLimit, json } = options;
  const { tokenFile, tlsCert, tlsKey } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      '--tls-cert: it needs --tls-key, and the reverse; give both',
    );
  }
  const { createServer } = await loadServer<ServerModule>('serve');
  setFlagsFromString(HEAP);
  const starting = createServer({
    folders,
    host,
    ...(options.insecure && { insecure: true }),
    port: options.port,
    grpcPort: options.grpcPort === false ? null : options.grpcPort,
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
    ...(tlsCert && { tls: { cert: tlsCert, key: tlsKey } }),
    log: (entry: object) => io.err(`${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`),
  });
  const server = await starting.catch((error: unknown) => {
    throw asUsers(error);
  });
  const { url, grpcAddress } = server;
  const models = server.repository.loaded();
  if (json) {
    const served = models.map(({ name, version, setting: { name: policy, file, promise } }) => ({
      ...{ name, version, policy, file, promise },
    }));
    io.out(`${JSON.stringify({ url, grpcAddress, models: served })}\n`);
  } else {
    io.out(
      `${paint(io, 'bold', url)}: REST, /metrics and a live page; gRPC: ${grpcAddress ?? 'off'}. Ctrl-C ends it.\n${models.map(wordServed).join('')}`,
    );
  }
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  if (!json) io.err('draining: requests under way end, new ones are refused\n');
  await server.close();
}
