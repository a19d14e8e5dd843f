import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { ServerError } from './errors.js';
import { isLoopback } from './http/origin.js';

const file = z.string().min(1);

/** Options of a server and their defaults. */
export const serverOptionsSchema = z.strictObject({
  /** Folders of models; see ModelRepository. */
  folders: z.array(z.string().min(1)).min(1),
  /** Loopback only by default; beyond it, `tokenFile` or `insecure` is needed. */
  host: z.string().default('127.0.0.1'),
  /** Everybody who reaches the server may use it without a token, but not load or unload models. */
  insecure: z.boolean().default(false),
  /** 0: any free port. */
  port: z.int().min(0).max(65535).default(8000),
  /** Port of gRPC; null to disable gRPC. */
  grpcPort: z.int().min(0).max(65535).nullable().default(8001),
  /** Port on loopback that alone has loading and unloading of models, metrics and the live page, without tokens; by default there is none. */
  controlPort: z.int().min(0).max(65535).optional(),
  /**
   * Policy files, `model` for the gates and exits in the model file, or `full`; sorted from careful to bold by their promises. By
   * default a model runs with the `policy.json` of its folder, or else as `model`. A model that none of the files is for runs with the
   * `policy.json` of its folder, or else in full.
   */
  policies: z.array(z.string().min(1)).optional(),
  /** Float forms of 8-bit models: ONNX files, or folders with one. Each verifies the answers of policies that name it. */
  originals: z.array(z.string().min(1)).default([]),
  /** Its name in earlier versions. */
  references: z.undefined({ error: 'it is called originals now' }).optional(),
  threads: z.int().min(1).max(1024).default(availableParallelism()),
  /** Target for the 99th percentile of the latency, in milliseconds: models run as deep as it allows. */
  targetP99: z.number().positive().optional(),
  /** Or the number of waiting requests above which models run less deep. */
  targetQueue: z.int().min(0).optional(),
  /** Share of the items that also run in full to test the promise. */
  shadow: z.number().min(0).max(1).default(0.01),
  /**
   * Share of answers that settings may change whose promise is about accuracy. Only labels can test such a promise; without this option
   * it isn't watched.
   */
  maxDisagreement: z.number().gt(0).lt(1).optional(),
  /** Maximum number of waiting requests; others wait unread for a second, and are then answered with 429. */
  capacity: z.int().min(1).default(1024),
  /** Maximum number of items per call when requests wait. */
  maxItems: z.int().min(1).default(8),
  /** Maximum number of items in a request; a request with more is answered with 413. */
  maxRequestItems: z.int().min(1).default(1024),
  /** Maximum size of a body in bytes. */
  bodyLimit: z
    .int()
    .min(1)
    .default(64 << 20),
  /** Maximum size of the JSON of a body in bytes; what is sent in binary doesn't count. */
  jsonLimit: z
    .int()
    .min(1)
    .default(1 << 20),
  /** Maximum number of bytes that the inputs of all requests take together; others are answered with 429. */
  inputLimit: z
    .int()
    .min(1)
    .default(192 << 20),
  /** Maximum number of calls at a time of one gRPC connection; clients wait with others. */
  maxStreams: z.int().min(1).default(100),
  /** Milliseconds a client has to send its request, and to read its answer. */
  requestTimeout: z.int().min(1).default(30_000),
  /** Milliseconds that running requests have to end after SIGTERM. */
  drainTimeout: z.int().min(0).default(30_000),
  /** File with one token per line, and what it may do beside inference: `priority`, `control`. */
  tokenFile: file.optional(),
  /** PEM files; with `clientCa`, clients need a certificate that it signed. */
  tls: z.strictObject({ cert: file, key: file, clientCa: file.optional() }).optional(),
  /** Maximum number of connections of each protocol; a further one takes the place of one on which no request waits for its answer. */
  maxConnections: z.int().min(1).default(1024),
  /** Whether every request is logged. */
  accessLog: z.boolean().default(false),
  /** Milliseconds between two looks for models that are new, changed or gone; by default there are none. */
  poll: z
    .number()
    .min(100)
    .max(2 ** 31 - 1)
    .optional(),
  /** Records what each item of a request ran and skipped, and its answer. */
  audit: z
    .strictObject({
      /** Gets a folder for each version of a model: MODEL/VERSION. */
      folder: file,
      /** Milliseconds after which rotated files and stored inputs are removed; by default they are kept. */
      keep: z.number().positive().optional(),
      /** Bytes of the logs of all models together: rotated files are removed, oldest first, while it is exceeded; by default there is no limit. */
      keepBytes: z.int().positive().optional(),
      /** Milliseconds after which a file is rotated. */
      maxAge: z
        .number()
        .positive()
        .default(24 * 60 * 60 * 1000),
      /** Bytes at which a file is rotated too; by default 64 MiB, or a quarter of `keepBytes` if that is less. */
      maxBytes: z.int().min(4096).optional(),
      /** Of each input, its hash, or also the input itself, for replay without other data. */
      inputs: z.enum(['hash', 'store', 'none']).default('hash'),
      /** PEM file of an Ed25519 private key that signs the logs. */
      key: file.optional(),
    })
    .optional(),
  /** Called for each line of the server's log: changes of setting, trips, failures. */
  log: z
    .custom<(entry: Readonly<Record<string, unknown>>) => void>((value) => typeof value === 'function')
    .optional(),
});

export type ServerOptions = z.input<typeof serverOptionsSchema>;
export type ParsedOptions = z.output<typeof serverOptionsSchema>;

/** @throws ServerError INVALID_ARGUMENT */
export function parseServerOptions(options: ServerOptions): ParsedOptions {
  const parsed = serverOptionsSchema.safeParse(options);
  if (parsed.success) return checkedHost(parsed.data);
  const issues = parsed.error.issues.map(
    ({ path, message }) => `${['options', ...path].join('.')}: ${message}`,
  );
  throw new ServerError('INVALID_ARGUMENT', issues.join('; '));
}

function checkedHost(options: ParsedOptions): ParsedOptions {
  const { host, tokenFile, insecure } = options;
  if (isLoopback(host) || tokenFile !== undefined || insecure) return options;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `host ${host}: whoever reaches it could use the server; give --token-file, or --insecure if the network is trusted`,
  );
}
