import { createReadStream } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { ResidualSkipError } from 'residual-skip';
import { z } from 'zod';
import { bytesOfDataUrl, fileBytes } from './image-bytes.js';
import { type BulkJob, jobId, jsonOf, MAX_BYTES, sha256 } from './job.js';

/** An image as a source names it. */
interface Given {
  readonly image: string;
  readonly name?: string;
}

const IMAGES = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif']);
const LISTS = new Set(['.ndjson', '.jsonl']);
/** Number of images that are hashed together. */
const BATCH = 200;
/** Of them, how many are read at a time. */
const READS = 4;
/** Bytes of a line; an image in base64 is the longest that makes sense. */
const MAX_LINE = 2 * MAX_BYTES;

const lineSchema = z.union([
  z.string().min(1),
  z.strictObject({ image: z.string().min(1), name: z.string().optional() }),
]);

const isUrl = (text: string) => /^https?:\/\//i.test(text);
const invalid = (message: string, cause?: unknown) =>
  new ResidualSkipError('INVALID_DATA', message, { cause });

/**
 * Yields jobs for all images of `sources` in batches, as they are read: the whole list is never in memory. Entries that
 * can't become a job are passed to `onProblem` and skipped.
 * @param sources image files, folders (recursively), `http(s)` URLs, NDJSON lists, or `-` for a list on `stdin`
 * @throws ResidualSkipError INVALID_DATA for a source that doesn't exist
 */
export async function* jobsFrom(
  sources: readonly string[],
  stdin: Readable,
  onProblem: (error: ResidualSkipError) => void,
): AsyncGenerator<BulkJob[]> {
  let batch: Given[] = [];
  const jobs = async () => {
    const made: BulkJob[][] = [];
    const rest = batch.entries();
    batch = [];
    const read = async () => {
      for (const [i, given] of rest) {
        made[i] = await jobOf(given).catch((error: ResidualSkipError) => {
          onProblem(error);
          return [];
        });
      }
    };
    await Promise.all(Array.from({ length: READS }, read));
    return made.flat();
  };
  for (const source of sources) {
    try {
      for await (const given of imagesOf(source, stdin, onProblem)) {
        batch.push(given);
        if (batch.length === BATCH) yield await jobs();
      }
    } catch (cause) {
      const { syscall, message } = cause as NodeJS.ErrnoException;
      if (syscall === undefined) throw cause;
      throw invalid(`source ${source}: ${message}`, cause);
    }
  }
  if (batch.length > 0) yield await jobs();
}

async function* imagesOf(
  source: string,
  stdin: Readable,
  onProblem: (error: ResidualSkipError) => void,
): AsyncGenerator<Given> {
  if (source === '-') return yield* imagesIn(stdin, 'stdin', onProblem);
  if (isUrl(source)) return yield { image: source };
  if ((await stat(source)).isDirectory()) yield* imagesBelow(source);
  else if (LISTS.has(extname(source).toLowerCase())) {
    yield* imagesIn(createReadStream(source), source, onProblem);
  } else yield { image: source };
}

async function* imagesBelow(folder: string): AsyncGenerator<Given> {
  for await (const entry of await opendir(folder)) {
    if (entry.name.startsWith('.')) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* imagesBelow(path);
    else if (IMAGES.has(extname(entry.name).toLowerCase())) yield { image: path };
  }
}

async function* imagesIn(
  input: Readable,
  list: string,
  onProblem: (error: ResidualSkipError) => void,
): AsyncGenerator<Given> {
  let number = 0;
  for await (const line of linesOf(input, list)) {
    number++;
    if (line.trim() === '') continue;
    const parsed = lineSchema.safeParse(jsonOf(line));
    if (!parsed.success) {
      onProblem(
        invalid(`${list}, line ${number}: expected {"image": PATH or URL, "name": TEXT}, or a string`),
      );
    } else yield typeof parsed.data === 'string' ? { image: parsed.data } : parsed.data;
  }
}

/** The lines of a list. Unlike those of node:readline, they have a limit. */
async function* linesOf(input: Readable, list: string): AsyncGenerator<string> {
  let pieces: Buffer[] = [];
  let size = 0;
  for await (const chunk of input as AsyncIterable<Buffer | string>) {
    let bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
      yield Buffer.concat([...pieces, bytes.subarray(0, end)]).toString();
      bytes = bytes.subarray(end + 1);
      pieces = [];
      size = 0;
    }
    pieces.push(bytes);
    size += bytes.length;
    if (size > MAX_LINE) throw invalid(`${list}: it has a line of more than ${MAX_LINE >> 20} MiB`);
  }
  if (size > 0) yield Buffer.concat(pieces).toString();
}

async function jobOf({ image, name }: Given): Promise<BulkJob[]> {
  if (isUrl(image)) {
    const called = name ?? image;
    return [{ id: jobId(called, image), name: called, image, sha256: null }];
  }
  if (/^data:/i.test(image)) {
    const hash = sha256(bytesOfDataUrl(image));
    const called = name ?? hash;
    return [{ id: jobId(called, hash), name: called, image, sha256: hash }];
  }
  const called = name ?? image;
  const path = resolve(image);
  const bytes = await fileBytes(path, called).catch((cause: Error) => {
    throw invalid(cause.message, cause);
  });
  const content = sha256(bytes);
  return [{ id: jobId(called, content), name: called, image: path, sha256: content }];
}
