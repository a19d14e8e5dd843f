import { constants, type FileHandle, open } from 'node:fs/promises';
import { ResidualSkipError } from 'residual-skip';
import { bytesOfBase64 } from '../inference/base64.js';
import { download } from './download.js';
import { type BulkJob, type ImageOptions, JobFailure, MAX_BYTES, sha256, TOO_LARGE } from './job.js';

/** A file that isn't read by then is on storage that doesn't answer. */
const READ_MS = 60_000;

/** @throws ResidualSkipError INVALID_DATA */
export function bytesOfDataUrl(url: string): Uint8Array {
  const invalid = (why: string) => new ResidualSkipError('INVALID_DATA', `image ${url.slice(0, 40)}: ${why}`);
  const [head] = /^data:[^,]*;base64,/i.exec(url) ?? [];
  const data = url.slice(head?.length);
  if (head && data.length > (4 / 3) * MAX_BYTES) throw invalid(TOO_LARGE);
  if (!head || data === '')
    throw invalid('it is no data: URL in base64; begin it with "data:image/png;base64,"');
  return bytesOfBase64(data, invalid);
}

/**
 * The bytes of a job's image, and their SHA-256.
 * @throws JobFailure; with `retry` if the image may be available later
 */
export async function imageBytes(
  job: BulkJob,
  options: ImageOptions = {},
): Promise<{ bytes: Uint8Array; hash: string }> {
  const bytes = await load(job, options);
  const hash = sha256(bytes);
  if (job.sha256 !== null && job.sha256 !== hash) {
    throw new JobFailure('INVALID_DATA', `image ${job.name}: it has changed; enqueue it again`, false);
  }
  return { bytes, hash };
}

async function load({ image, name }: BulkJob, options: ImageOptions): Promise<Uint8Array> {
  if (/^data:/i.test(image)) return bytesOfDataUrl(image);
  if (/^https?:/i.test(image)) return download(image, name, options);
  return fileBytes(image, name);
}

/**
 * The bytes of a file. Pipes and devices, which may never end, are refused.
 * @throws JobFailure
 */
export async function fileBytes(path: string, name: string, timeoutMs = READ_MS): Promise<Uint8Array> {
  const failure = (why: string, retry: boolean, cause?: unknown) =>
    new JobFailure('INVALID_DATA', `image ${name}: ${why}`, retry, { cause });
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(failure(`it can't be read within ${timeoutMs / 1000} s`, true)),
    timeoutMs,
  );
  const stalled = new Promise<never>((_, reject) => {
    late.signal.addEventListener('abort', () => reject(late.signal.reason));
  });
  const read = async (file: FileHandle) => {
    const stat = await file.stat();
    if (!stat.isFile()) throw failure('it is no regular file', false);
    if (stat.size > MAX_BYTES) throw failure(TOO_LARGE, false);
    // Files of /proc have no size, and others may grow.
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of file.createReadStream({ autoClose: false, end: MAX_BYTES })) {
      size += chunk.length;
      chunks.push(chunk);
    }
    if (size > MAX_BYTES) throw failure(TOO_LARGE, false);
    return Buffer.concat(chunks);
  };
  const opened = (async () => {
    // Opening a pipe would otherwise wait for somebody who writes to it.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      return await read(file);
    } finally {
      await file.close();
    }
  })();
  try {
    return await Promise.race([opened, stalled]);
  } catch (cause) {
    opened.catch(() => {});
    throw cause instanceof JobFailure ? cause : failure((cause as Error).message, true, cause);
  } finally {
    clearTimeout(timer);
  }
}
