import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ResidualSkipError } from 'residual-skip';
import { z } from 'zod';
import { bytesOfDataUrl } from './image-bytes.js';
import { type BulkJob, jobId, jsonOf, sha256 } from './job.js';

/** An image as a source names it. */
interface Given {
  readonly image: string;
  readonly name?: string;
}

const IMAGES = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif']);
const LISTS = new Set(['.ndjson', '.jsonl']);
/** Number of images that are hashed together. */
const BATCH = 200;

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
    const made = await Promise.all(
      batch.map((given) =>
        jobOf(given).catch((error: ResidualSkipError) => {
          onProblem(error);
          return [];
        }),
      ),
    );
    batch = [];
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
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
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
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash).catch((cause: Error) => {
    throw invalid(`image ${called}: ${cause.message}`, cause);
  });
  const content = hash.digest('hex');
  return [{ id: jobId(called, content), name: called, image: path, sha256: content }];
}
