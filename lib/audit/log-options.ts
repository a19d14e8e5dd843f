import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { late } from '../util/late.js';
import { parseStrict } from '../util/validation.js';
import type { Checkpoint } from './checkpoint.js';

/** Options of `auditLog`. */
export interface AuditLogOptions {
  /** File to append to; rotated files are beside it as NAME.1.EXT, NAME.2.EXT, oldest first. */
  path: string;
  /** Fraction of the items to record, 0 to 1; 1 by default. */
  sample?: number | undefined;
  /**
   * `hash` (the default) records the SHA-256 of each item's input, which replay needs. `store` also stores the input, in the folder
   * `inputs` beside the log, so that replay needs no other data. `none` records neither.
   */
  inputs?: 'hash' | 'store' | 'none' | undefined;
  /** Names of the classes, for the report. */
  labels?: readonly string[] | undefined;
  /** Size in bytes at which a file is rotated, which it may exceed by some lines; by default 64 MiB, or a quarter of `keepBytes` if that is less. */
  maxBytes?: number | undefined;
  /** Age in milliseconds at which a file is rotated too. */
  maxAge?: number | undefined;
  /** Milliseconds after which rotated files, by their last line, and stored inputs are removed; by default they are kept. */
  keep?: number | undefined;
  /**
   * Size in bytes of all files of the log: rotated files are removed, oldest first, while it is exceeded. The newest file always stays,
   * and stored inputs don't count. By default, there is no limit.
   */
  keepBytes?: number | undefined;
  /** Folder whose logs with the name of this one, at any depth, `keepBytes` counts together; by default it is for this log. */
  keepWithin?: string | undefined;
  /** Number of best classes to record; 3 by default. */
  top?: number | undefined;
  /** File of an Ed25519 private key (PEM), which signs the log every minute, where there is something new, and at its end. */
  key?: string | undefined;
  /** Called with each signature: kept elsewhere, it shows whether the end of the log was removed. */
  onCheckpoint?: ((checkpoint: Checkpoint) => void) | undefined;
}

/** What an audit log has written and lost. */
export interface AuditLogStats {
  /** Items written to the file. */
  readonly written: number;
  /**
   * Items of failed writes (the first of them may be in the file), or that came faster than the disk could take them.
   */
  readonly lost: number;
  /** Inputs that could not be stored. */
  readonly inputsLost: number;
  /** Writes that failed. */
  readonly errors: number;
  /** Rotated files that were removed, by age or size. */
  readonly removed: number;
  /** Message of the last write that failed; null if none has. */
  readonly lastError: string | null;
}

declare module '../skip/observer.js' {
  interface SessionStats {
    readonly auditLog?: AuditLogStats;
    readonly [another: `auditLog${number}`]: AuditLogStats | undefined;
  }
}

/** Of a file that is rotated. */
const LEAST_BYTES = 4096;

const optionsSchema = late(() =>
  z.strictObject({
    path: z.string({ error: 'expected the path of a file' }).min(1),
    sample: z.number().min(0).max(1).optional(),
    inputs: z.enum(['hash', 'store', 'none']).optional(),
    labels: z.array(z.string()).readonly().optional(),
    maxBytes: z.int().min(LEAST_BYTES).optional(),
    maxAge: z.number().positive().optional(),
    keep: z.number().positive().optional(),
    keepBytes: z
      .int()
      .min(4 * LEAST_BYTES)
      .optional(),
    keepWithin: z.string().min(1).optional(),
    top: z.int().min(1).max(100).optional(),
    key: z.string().min(1).optional(),
    onCheckpoint: z
      .custom<(checkpoint: Checkpoint) => void>((value) => typeof value === 'function', {
        error: 'expected a function',
      })
      .optional(),
  }),
);

/** @throws ResidualSkipError INVALID_ARGUMENT */
export function parseLogOptions(options: AuditLogOptions) {
  const parsed = parseStrict(optionsSchema(), options, { subject: 'auditLog options' });
  const { keepBytes = Number.POSITIVE_INFINITY } = parsed;
  const { maxBytes = Math.min(2 ** 26, Math.floor(keepBytes / 4)) } = parsed;
  if (maxBytes > keepBytes) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `keepBytes: it is ${keepBytes}, but a file has up to ${maxBytes} bytes before it is rotated; give at least that, or a lower maxBytes`,
    );
  }
  const defaults = { sample: 1, inputs: 'hash' as const, top: 3 };
  return { ...defaults, ...parsed, maxBytes, labels: parsed.labels ?? null };
}
