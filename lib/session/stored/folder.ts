/** The files of a cache's folder. */
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { emitWarning } from '../../util/warnings.js';

/** Access for the user alone: what is derived from weights is as secret as they are. */
const [FOLDER_MODE, FILE_MODE] = [0o700, 0o600];
/** Rights of others to write. */
const WRITABLE = 0o022;

/** Opening a named pipe doesn't wait. */
const READING = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
const TEMPORARY = '.tmp';

let warned = false;
let written = 0;

export class Folder {
  constructor(private readonly path: string) {}

  /** The bytes of a file; undefined if it isn't there, or if somebody else may have written it. */
  read(name: string): Uint8Array | undefined {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(join(this.path, name), READING);
      const stat = fstatSync(descriptor);
      const { size, mode, uid } = stat;
      if (!stat.isFile()) return undefined;
      const user = process.getuid?.();
      if (user !== undefined && ((uid !== user && uid !== 0) || (mode & WRITABLE) !== 0)) return undefined;
      const bytes = new Uint8Array(size);
      for (let at = 0; at < size; ) {
        const read = readSync(descriptor, bytes, at, size - at, at);
        if (read === 0) return undefined;
        at += read;
      }
      return bytes;
    } catch {
      return undefined;
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }

  /** Writes a file, which others see as a whole or not at all. The first failure of a process is a warning. */
  write(name: string, bytes: Uint8Array): void {
    const temporary = `${name}.${process.pid}-${written++}${TEMPORARY}`;
    try {
      mkdirSync(this.path, { recursive: true, mode: FOLDER_MODE });
      writeFileSync(join(this.path, temporary), bytes, { mode: FILE_MODE, flag: 'wx' });
      renameSync(join(this.path, temporary), join(this.path, name));
    } catch (error) {
      this.#warn(error);
      this.remove(temporary);
    }
  }

  /** Names of files that begin so. */
  list(beginning: string): string[] {
    try {
      return readdirSync(this.path).filter((name) => name.startsWith(beginning) && !name.endsWith(TEMPORARY));
    } catch {
      return [];
    }
  }

  remove(name: string): void {
    try {
      rmSync(join(this.path, name), { force: true });
    } catch {
      // It takes some room.
    }
  }

  #warn(error: unknown): void {
    if (warned) return;
    warned = true;
    const { message } = error as Error;
    const way = 'give a folder that this process may write to; until then, networks are lowered each time';
    emitWarning('CACHE', `cache ${this.path}: it can't be written (${message}); ${way}`);
  }
}
