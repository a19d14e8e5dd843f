import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { codeOfWriting, ResidualSkipError } from 'residual-skip';
import { IdTable } from './id-table.js';

const CHUNK = 1 << 20;
const NEWLINE = 10;
/** Every line begins with this. */
const BEGIN = '{"id":"';
const ID = /^\{"id":"([0-9a-f]{32})"/;
/** Number of bytes at the start of a line that include its id. */
const ID_BYTES = 41;

/** The complete lines of a file from byte `from` on, in pages, each with its end offset; nothing if the file is missing. */
export async function* linesFrom(
  path: string,
  from: number,
): AsyncGenerator<{ lines: readonly Buffer[]; end: number }> {
  const file = await openIfThere(path);
  if (file === undefined) return;
  try {
    let pieces: Buffer[] = [];
    let read = from;
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(CHUNK), 0, CHUNK, read);
      if (bytesRead === 0) return;
      read += bytesRead;
      const piece = buffer.subarray(0, bytesRead);
      const last = piece.lastIndexOf(NEWLINE);
      // Joins the pieces of a long line once, not for every piece.
      pieces.push(last < 0 ? piece : piece.subarray(0, last + 1));
      if (last < 0) continue;
      yield { lines: splitLines(Buffer.concat(pieces)), end: read - bytesRead + last + 1 };
      pieces = [piece.subarray(last + 1)];
    }
  } finally {
    await file.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  return open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(NEWLINE, at);
    lines.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return lines;
}

/** The id at the start of a line. */
export function idOf(line: Buffer): string | undefined {
  return ID.exec(line.toString('latin1', 0, ID_BYTES))?.[1];
}

/** The lines that begin with an id, as those of answers do. */
export function answersAmong(lines: readonly string[]): string[] {
  return lines.filter((line) => ID.test(line));
}

/** The ids in a file that grows and may be deleted. */
export class IdFile {
  ids = new IdTable();
  #end = 0;

  constructor(readonly path: string) {}

  /** Reads the lines appended since the last call. */
  async refresh(): Promise<IdTable> {
    const file = await openIfThere(this.path);
    const size = (await file?.stat())?.size ?? 0;
    await file?.close();
    if (size < this.#end) {
      this.ids = new IdTable();
      this.#end = 0;
    }
    for await (const { lines, end } of linesFrom(this.path, this.#end)) {
      for (const line of lines) {
        const id = idOf(line);
        if (id) this.ids.add(id);
      }
      this.#end = end;
    }
    return this.ids;
  }
}

/** Appends lines to a file. Only one process at a time may do so. */
export class LineAppender {
  #waiting: { readonly line: string; done(error?: unknown): void }[] = [];
  #writing: Promise<void> | undefined;

  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /**
   * Removes an incomplete last line, which a killed process may have left.
   * @throws ResidualSkipError INVALID_ARGUMENT for a file that can't be written or that has other content, WRITE_FAILED when the disk
   * is full or fails
   */
  static async open(path: string): Promise<LineAppender> {
    const invalid = (why: string, cause?: unknown) =>
      new ResidualSkipError(codeOfWriting(cause), `file ${path}: ${why}; take another one`, { cause });
    const file = await open(path, 'a+').catch((cause: Error) => {
      throw invalid(cause.message, cause);
    });
    const { buffer, bytesRead } = await file.read(Buffer.alloc(BEGIN.length), 0, BEGIN.length, 0);
    if (!BEGIN.startsWith(buffer.toString('latin1', 0, bytesRead))) {
      await file.close();
      throw invalid('it holds something else');
    }
    let whole = 0;
    for await (const { end } of linesFrom(path, 0)) whole = end;
    await file.truncate(whole);
    // Sync the folder too, so that the name of a new file survives a crash.
    const folder = await open(dirname(path), 'r');
    await folder.sync().finally(() => folder.close());
    return new LineAppender(path, file);
  }

  /**
   * Resolves once the line is on disk. Lines appended in the meantime are written and synced together.
   * @throws ResidualSkipError WRITE_FAILED
   */
  append(line: string): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#waiting.push({ line, done: (error) => (error ? reject(error) : resolve()) });
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined;
      });
    });
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0);
      const error = await this.#store(group.map(({ line }) => `${line}\n`).join('')).then(
        () => undefined,
        (cause: Error) =>
          new ResidualSkipError(
            'WRITE_FAILED',
            `file ${this.path}: ${cause.message}; make room on the disk`,
            { cause },
          ),
      );
      for (const { done } of group) done(error);
    }
  }

  async #store(text: string): Promise<void> {
    const { size } = await this.file.stat();
    try {
      await this.file.appendFile(text);
      await this.file.datasync();
    } catch (error) {
      // Remove the partial line, or the next line would be appended to it.
      await this.file.truncate(size);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.file.close();
  }
}
