import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { ServerError } from './errors.js';

const file = z.string().min(1);

/** Options of a server, with what they are when left out. */
export const serverOptionsSchema = z.strictObject({
  /** Folders of models; see ModelRepository. */
  folders: z.array(z.string().min(1)).min(1),
  /** Loopback only unless it says otherwise. */
  host: z.string().default('127.0.0.1'),
  /** 0: any that is free. */
  port: z.int().min(0).max(65535).default(8000),
  /** Of gRPC; null for none. */
  grpcPort: z.int().min(0).max(65535).nullable().default(8001),
  /** Policy files, or `model` for the gates in the file; from careful to bold by what they promise. */
  policies: z.array(z.string().min(1)).default(['model']),
  threads: z.int().min(1).max(1024).default(availableParallelism()),
  /** Latency that 99 % of the requests should keep, in milliseconds: models run as deep as it allows. */
  targetP99: z.number().positive().optional(),
  /** Or requests that may wait before models run less deep. */
  targetQueue: z.int().min(0).optional(),
  /** Share of the items that is run in full too, to watch over the promise. */
  shadow: z.number().min(0).max(1).default(0.01),
  /** Requests that may wait; others are answered with 429. */
  capacity: z.int().min(1).default(1024),
  /** Items that the engine may be handed at once where requests wait. */
  mostItems: z.int().min(1).default(8),
  /** Bytes of a body. */
  bodyLimit: z
    .int()
    .min(1)
    .default(64 << 20),
  /** Milliseconds in which a client must have sent its request. */
  requestTimeout: z.int().min(1).default(30_000),
  /** Milliseconds that requests under way get after SIGTERM. */
  drainTimeout: z.int().min(0).default(30_000),
  /** File with a token on each line. */
  tokenFile: file.optional(),
  /** PEM files. */
  tls: z.strictObject({ cert: file, key: file }).optional(),
  /** Writes lines of the server's log: changes of setting, trips, failures. */
  log: z
    .custom<(entry: Readonly<Record<string, unknown>>) => void>((value) => typeof value === 'function')
    .optional(),
});

export type ServerOptions = z.input<typeof serverOptionsSchema>;
export type ParsedOptions = z.output<typeof serverOptionsSchema>;

/** @throws ServerError INVALID_ARGUMENT */
export function parseServerOptions(options: ServerOptions): ParsedOptions {
  const parsed = serverOptionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(({ path, message }) => `${path.join('.') || 'options'}: ${message}`);
  throw new ServerError('INVALID_ARGUMENT', issues.join('; '));
}
