import { readFile } from 'node:fs/promises';
import { ResidualSkipError } from 'residual-skip';
import { type BulkJob, JobFailure, sha256 } from './job.js';

/** Larger images are refused. */
const MAX_BYTES = 64 << 20;
const DOWNLOAD_MS = 60_000;

/** @throws ResidualSkipError INVALID_DATA */
export function bytesOfDataUrl(url: string): Uint8Array {
  const [, data] = /^data:[^,]*;base64,([A-Za-z0-9+/=_-]+)$/i.exec(url) ?? [];
  if (data === undefined) {
    throw new ResidualSkipError(
      'INVALID_DATA',
      `image ${url.slice(0, 40)}: it is no data: URL in base64; begin it with "data:image/png;base64,"`,
    );
  }
  return Buffer.from(data, 'base64');
}

/**
 * The bytes of a job's image, and their SHA-256.
 * @throws JobFailure; with `retry` if the image may be available later
 */
export async function imageBytes(job: BulkJob): Promise<{ bytes: Uint8Array; hash: string }> {
  const bytes = await load(job);
  const hash = sha256(bytes);
  if (job.sha256 !== null && job.sha256 !== hash) {
    throw new JobFailure('INVALID_DATA', `image ${job.name}: it has changed; enqueue it again`, false);
  }
  return { bytes, hash };
}

async function load({ image, name }: BulkJob): Promise<Uint8Array> {
  if (/^data:/i.test(image)) return bytesOfDataUrl(image);
  if (/^https?:/i.test(image)) return download(image, name);
  return readFile(image).catch((cause: Error) => {
    throw new JobFailure('INVALID_DATA', `image ${name}: ${cause.message}`, true, { cause });
  });
}

async function download(url: string, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const failure = (message: string, retry: boolean, cause?: unknown) =>
    new JobFailure('INVALID_DATA', `image ${name}: ${message}`, retry, { cause });
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_MS) });
    const { ok, status } = response;
    // These two are the only 4xx errors that are worth a retry.
    if (!ok) {
      throw failure(`the server answered ${status}`, status >= 500 || status === 408 || status === 429);
    }
    for await (const chunk of response.body ?? []) {
      size += chunk.byteLength;
      if (size > MAX_BYTES) throw failure(`it is larger than ${MAX_BYTES >> 20} MiB`, false);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof JobFailure) throw cause;
    const { message, cause: deeper } = cause as Error;
    throw failure(deeper instanceof Error ? `${message}: ${deeper.message}` : message, true, cause);
  }
  return Buffer.concat(chunks);
}
