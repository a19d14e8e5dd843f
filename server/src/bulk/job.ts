import { createHash } from 'node:crypto';
import { ResidualSkipError } from 'residual-skip';
import { z } from 'zod';

/** An image that waits for its answer. */
export interface BulkJob {
  readonly id: string;
  /** Name of the image in its result. */
  readonly name: string;
  /** Path of a file, `http(s)` URL, or `data:` URL. */
  readonly image: string;
  /** SHA-256 of the image's bytes; null for a URL, which only the worker downloads. */
  readonly sha256: string | null;
}

export const bulkJobSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  name: z.string(),
  image: z.string().min(1),
  sha256: z.string().nullable(),
});

/** What a worker may read for a job. */
export interface ImageOptions {
  /** Whether URLs may lead to addresses that aren't public, such as those of the worker's own network. */
  readonly privateUrls?: boolean | undefined;
}

/** Larger images are refused. */
export const MAX_BYTES = 64 << 20;
export const TOO_LARGE = `it is larger than ${MAX_BYTES >> 20} MiB`;

/** What all answers of a queue have in common, so that a job that runs twice has the same answer on any machine. */
export const bindingSchema = z.strictObject({
  /** SHA-256 of the model file. */
  model: z.string(),
  /** Name of the setting, and SHA-256 of its policy. */
  setting: z.string(),
  policy: z.string(),
  /** SHA-256 of the labels and of the preprocessing. */
  files: z.string(),
});

export type Binding = z.output<typeof bindingSchema>;

/**
 * The binding that a queue holds.
 * @param where what holds it, in messages
 * @throws ResidualSkipError INVALID_DATA
 */
export function parseBinding(text: string, where: string): Binding {
  const parsed = bindingSchema.safeParse(jsonOf(text));
  if (parsed.success) return parsed.data;
  throw new ResidualSkipError('INVALID_DATA', `${where}: it is damaged; take another queue`);
}

/** The value of a JSON text; undefined if it is none. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The answer for one image. It depends on the job and the binding alone: it has neither a time nor a worker's name. */
export interface BulkResult {
  readonly id: string;
  readonly name: string;
  /** SHA-256 of the image's bytes. */
  readonly sha256: string;
  readonly label: string;
  readonly index: number;
  readonly probability: number;
  readonly blocksSkipped: number;
  readonly blocks: number;
  /** The setting that ran. */
  readonly setting: string;
  /** The certified limit; null if nothing was certified. */
  readonly promise: { readonly limit: number; readonly confidence: number; readonly metric: string } | null;
  /** SHA-256 of the model file. */
  readonly model: string;
}

export const failureSchema = z.object({ code: z.string(), message: z.string() });
export const deadLetterSchema = z.object({
  id: z.string(),
  name: z.string(),
  attempts: z.number(),
  error: failureSchema,
});
/** A job that was given up. */
export type DeadLetter = Readonly<z.output<typeof deadLetterSchema>>;

/** The reason why a job has no answer, and whether a retry may help. */
export class JobFailure extends Error {
  override readonly name = 'JobFailure';

  constructor(
    readonly code: string,
    message: string,
    readonly retry: boolean,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

export const sha256 = (data: string | Uint8Array) => createHash('sha256').update(data).digest('hex');

/**
 * Jobs with the same name and the same bytes are the same job. For a URL, its text replaces the bytes.
 * @param content SHA-256 of the bytes, or the URL
 */
export function jobId(name: string, content: string): string {
  return sha256(JSON.stringify([name, content])).slice(0, 32);
}
