/** The options of `serve`: on the command line, in a file of `--config`, and as environment variables, from one table. */
import { readFileSync } from 'node:fs';
import { delimiter } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { misspelt } from '../util/suggest.js';
import { parseStrict } from '../util/validation.js';
import { fraction, positiveInteger } from './options.js';

/** Parsed options, by the names that the file of `--config` has for them. */
export interface ServeOptions {
  readonly host: string;
  readonly insecure?: boolean;
  readonly port: number;
  readonly grpcPort: number | false;
  readonly controlPort?: number;
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
  readonly tlsClientCa?: string;
  readonly maxConnections?: number;
  readonly accessLog?: boolean;
  readonly poll?: number;
  readonly audit?: string;
  readonly auditKeep?: number;
  readonly auditSize?: number;
  readonly auditRotate?: Rotation;
  readonly auditInputs?: 'hash' | 'store' | 'none';
  readonly auditKey?: string;
  readonly json?: boolean;
}

/** When a log is rotated. */
interface Rotation {
  readonly maxAge?: number;
  readonly maxBytes?: number;
}

/** What a value is in JSON. The command line and the environment have texts, which `parse` reads. */
type Kind = 'text' | 'texts' | 'number' | 'port' | 'flag';

interface Entry {
  readonly flags: string;
  readonly help: string;
  readonly kind: Kind;
  /** Reads a text, for commander. */
  readonly parse?: (text: string) => unknown;
  readonly choices?: readonly string[];
  readonly default?: unknown;
}

const port = (text: string): number => {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 65535) return value;
  throw new InvalidArgumentError('It must be a port, 0 to 65535.');
};

const MILLISECONDS = { ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };
const BYTES = { kb: 2 ** 10, mb: 2 ** 20, gb: 2 ** 30 };

/** Parses `20ms`, `0.5s`, `30d` or a number of milliseconds, for commander; returns milliseconds. */
export function duration(text: string): number {
  const [, digits, unit = 'ms'] = /^(\d+(?:\.\d+)?)(ms|s|min|h|d)?$/.exec(text.trim()) ?? [];
  const value = Number(digits) * MILLISECONDS[unit as keyof typeof MILLISECONDS];
  if (value > 0) return value;
  throw new InvalidArgumentError('It must be a time such as 20ms, 0.5s, 2h or 30d.');
}

/** Undefined for what is no size, such as a time. */
function bytesIn(text: string): number | undefined {
  const [, digits, unit] = /^(\d+)(kb|mb|gb)$/i.exec(text.trim()) ?? [];
  return unit === undefined ? undefined : Number(digits) * BYTES[unit.toLowerCase() as keyof typeof BYTES];
}

function size(text: string): number {
  const bytes = bytesIn(text);
  if (bytes) return bytes;
  throw new InvalidArgumentError('It must be a size such as 500MB or 2GB.');
}

function rotation(text: string): Rotation {
  const maxBytes = bytesIn(text);
  return maxBytes === undefined ? { maxAge: duration(text) } : { maxBytes };
}

const TABLE: readonly Entry[] = [
  { flags: '--host <address>', help: 'address to listen on', kind: 'text', default: '127.0.0.1' },
  { flags: '--insecure', help: 'listen beyond loopback without tokens', kind: 'flag' },
  {
    flags: '--port <n>',
    help: 'port of REST; 0 for any that is free',
    kind: 'number',
    parse: port,
    default: 8000,
  },
  { flags: '--grpc-port <n>', help: 'port of gRPC', kind: 'port', parse: port, default: 8001 },
  {
    flags: '--control-port <n>',
    help: 'loopback port for loading and unloading models, metrics and the live page, which other ports then lack',
    kind: 'number',
    parse: port,
  },
  {
    flags: '--policy <policies...>',
    help:
      "policy files, each for the model that it was made for, 'full' (run everything) or 'model' (the file's own gates and exits " +
      "decide); default: policy.json of each model's folder, or else 'model'",
    kind: 'texts',
  },
  {
    flags: '--original <models...>',
    help: 'float forms of 8-bit models, to verify and monitor the policies that name them',
    kind: 'texts',
  },
  {
    flags: '--threads <n>',
    help: 'worker threads (default: as many cores as the process may use)',
    kind: 'number',
    parse: positiveInteger,
  },
  {
    flags: '--target-p99 <time>',
    help: 'latency that 99 % of requests should keep, such as 20ms: skip more to keep it',
    kind: 'text',
    parse: duration,
  },
  {
    flags: '--target-queue <n>',
    help: 'or number of requests that may wait before models skip more',
    kind: 'number',
    parse: positiveInteger,
  },
  {
    flags: '--shadow <share>',
    help: 'share of items to run in full as well, which tests the promises (default: 0.01)',
    kind: 'number',
    parse: fraction,
  },
  {
    flags: '--max-disagreement <share>',
    help: 'share of answers that may change under promises about accuracy, which are not tested otherwise',
    kind: 'number',
    parse: fraction,
  },
  {
    flags: '--max-waiting <n>',
    help: 'requests that may wait; others are answered with 429',
    kind: 'number',
    parse: positiveInteger,
    default: 1024,
  },
  {
    flags: '--json-limit <bytes>',
    help: 'longest JSON of a request (default: 1048576)',
    kind: 'number',
    parse: positiveInteger,
  },
  {
    flags: '--token-file <file>',
    help: "file with a token on each line, one of which requests must send; 'priority' and 'control' after it are its rights",
    kind: 'text',
  },
  { flags: '--tls-cert <file>', help: 'PEM file of the certificate', kind: 'text' },
  { flags: '--tls-key <file>', help: 'PEM file of the key', kind: 'text' },
  {
    flags: '--tls-client-ca <file>',
    help: 'PEM file of the authorities that sign clients; clients then need a certificate',
    kind: 'text',
  },
  {
    flags: '--max-connections <n>',
    help: 'connections of each protocol; beyond, idle ones are closed (default: 1024)',
    kind: 'number',
    parse: positiveInteger,
  },
  { flags: '--access-log', help: 'log every request, with its id and caller', kind: 'flag' },
  {
    flags: '--poll <time>',
    help: 'look for new, changed and removed models this often, such as 10s',
    kind: 'text',
    parse: duration,
  },
  {
    flags: '--audit <dir>',
    help: 'record what each item ran and skipped, its answer, and who asked, in DIR/MODEL/VERSION',
    kind: 'text',
  },
  {
    flags: '--audit-keep <time>',
    help: 'remove records after this time, such as 30d',
    kind: 'text',
    parse: duration,
  },
  {
    flags: '--audit-size <size>',
    help: 'remove the oldest records while all of them take more than this, such as 2GB; stored inputs do not count',
    kind: 'text',
    parse: size,
  },
  {
    flags: '--audit-rotate <limit>',
    help: 'age or size at which a new file of records begins, such as 1d or 64MB (default: the first of these)',
    kind: 'text',
    parse: rotation,
  },
  {
    flags: '--audit-inputs <what>',
    help: "what to keep of inputs: 'hash', 'store' (the input too, so that replay needs no other data) or 'none' (default: hash)",
    kind: 'text',
    choices: ['hash', 'store', 'none'],
  },
  {
    flags: '--audit-key <file>',
    help: 'PEM file of an Ed25519 private key, which signs the records',
    kind: 'text',
  },
  { flags: '--json', help: 'print JSON lines', kind: 'flag' },
];

const FOLDERS = 'folders';

const PREFIX = 'RESIDUAL_SKIP_';

/** `RESIDUAL_SKIP_GRPC_PORT` of `grpcPort`. */
const variableOf = (name: string) =>
  `${PREFIX}${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;

/** Kubernetes sets variables for the ports of services: RESIDUAL_SKIP_PORT of one that is called residual-skip. */
const SERVICE_LINK = /^(tcp|udp|sctp):\/\//;

function optionOf({ flags, help, parse, choices, default: value }: Entry): Option {
  const option = new Option(flags, help);
  if (parse) option.argParser(parse);
  if (choices) option.choices(choices);
  return value === undefined ? option : option.default(value);
}

export function addServeOptions(command: Command): Command {
  command.argument(
    `[${FOLDERS}...]`,
    'folder of a model, of its versions (1/, 2/, ...), or of several models; or an ONNX file',
  );
  for (const entry of TABLE) {
    command.addOption(optionOf(entry));
    if (entry.kind === 'port') command.option('--no-grpc-port', 'without gRPC');
  }
  return command.option(
    '--config <file>',
    'JSON file with these options by their names, such as grpcPort; serve.schema.json of this package is its schema',
  );
}

function schemaOf(kind: Kind, parse: Entry['parse'], choices: readonly string[] | undefined): z.ZodType {
  switch (kind) {
    case 'flag':
      return z.boolean();
    case 'texts':
      return z.array(z.string()).min(1);
    case 'number':
      return z.number();
    case 'port':
      return z.union([z.int().min(0).max(65535), z.literal(false)]);
    case 'text':
      if (choices) return z.enum(choices);
      // A time may also be a number of milliseconds.
      return parse ? z.union([z.string(), z.number()]) : z.string();
  }
}

const named = TABLE.map((entry) => ({ ...entry, name: optionOf(entry).attributeName() }));

/** Schema of the file of `--config`. */
export const serveConfigSchema = z
  .strictObject({
    $schema: z.string().optional(),
    [FOLDERS]: z.array(z.string()).min(1).optional().meta({ description: 'The arguments of the command.' }),
    ...Object.fromEntries(
      named.map(({ name, kind, parse, choices, help }) => [
        name,
        schemaOf(kind, parse, choices).optional().meta({ description: help }),
      ]),
    ),
  })
  .meta({ title: 'Options of residual-skip serve' });

/**
 * Completes the options of the command line by those of the environment and then of the file of `--config`.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function completeOptions(
  folders: readonly string[],
  command: Command,
  environment: NodeJS.ProcessEnv,
): { readonly folders: readonly string[]; readonly options: ServeOptions } {
  const { config: file } = command.opts<{ config?: string }>();
  const config = file === undefined ? {} : readConfig(file);
  refuseMisspeltVariables(environment);
  for (const entry of named) {
    const { name } = entry;
    if (command.getOptionValueSource(name) === 'cli') continue;
    const variable = variableOf(name);
    const text = environment[variable];
    if (text !== undefined && !SERVICE_LINK.test(text))
      command.setOptionValueWithSource(name, valueFrom(entry, text, variable), 'env');
    else if (config[name] !== undefined)
      command.setOptionValueWithSource(
        name,
        valueFrom(entry, config[name], `config ${file}: ${name}`),
        'config',
      );
  }
  const listed =
    environment[variableOf(FOLDERS)]?.split(delimiter) ?? (config[FOLDERS] as string[] | undefined);
  const all = folders.length > 0 ? folders : listed;
  if (all) return { folders: all, options: command.opts() };
  throw new ResidualSkipError('INVALID_ARGUMENT', 'folders: none is given; name a folder with a model');
}

/** Other variables with the prefix may be somebody else's. */
function refuseMisspeltVariables(environment: NodeJS.ProcessEnv): void {
  const known = [FOLDERS, ...named.map(({ name }) => name)].map((name) =>
    variableOf(name).slice(PREFIX.length),
  );
  for (const variable of Object.keys(environment)) {
    const own = variable.slice(PREFIX.length);
    if (!variable.startsWith(PREFIX) || known.includes(own)) continue;
    const meant = misspelt(own, known);
    if (meant === undefined) continue;
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `${variable}: there is no such variable; did you mean '${PREFIX}${meant}'?`,
    );
  }
}

function readConfig(file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `config ${file}: it can't be read (${(cause as Error).message})`,
      {
        cause,
      },
    );
  }
  return parseStrict(serveConfigSchema, value, { subject: `config ${file}` });
}

/** @param given a text of the environment, or a value of the file */
function valueFrom({ kind, parse, choices }: Entry, given: unknown, where: string): unknown {
  const refuse = (why: string) =>
    new ResidualSkipError('INVALID_ARGUMENT', `${where}: ${why}, received '${given}'`);
  if (typeof given === 'boolean' || Array.isArray(given)) return given;
  const text = String(given);
  if (kind === 'texts') return text.split(delimiter);
  if (kind === 'flag' || (kind === 'port' && text === 'false')) {
    if (text !== 'true' && text !== 'false') throw refuse('it must be true or false');
    return text === 'true';
  }
  if (choices && !choices.includes(text)) throw refuse(`it must be one of ${choices.join(', ')}`);
  try {
    return parse ? parse(text) : text;
  } catch (error) {
    if (error instanceof InvalidArgumentError)
      throw refuse(error.message.replace(/\.$/, '').replace(/^It/, 'it'));
    throw error;
  }
}
