import { fstatSync, write } from 'node:fs';

/** Most milliseconds to wait for a thread's write when the process ends. */
const EXIT_WAIT_MS = 1000;

/** Appends all of `bytes` after the first `from`, which may take several writes. */
export function writeAll(fd: number, bytes: Buffer, from: number, done: (error: Error | null) => void): void {
  write(fd, bytes, from, bytes.length - from, null, (error, written) => {
    if (error || from + written === bytes.length) done(error);
    else writeAll(fd, bytes, from + written, done);
  });
}

/** Waits, without the event loop, until a write in progress has made the file this long. */
export function waitForSize(fd: number, size: number): void {
  const nap = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; waited < EXIT_WAIT_MS && fstatSync(fd).size < size; waited++)
    Atomics.wait(nap, 0, 0, 1);
}
