interface Closable {
  closeNow(): void;
}

/** Logs with items that may not be written yet. One listener serves all of them. */
const unwritten = new Set<Closable>();

function closeAll(): void {
  for (const log of unwritten) log.closeNow();
}

/** Closes a log when the process ends, unless it is forgotten before. */
export function closeAtExit(log: Closable): void {
  if (unwritten.size === 0) process.on('exit', closeAll);
  unwritten.add(log);
}

export function forget(log: Closable): void {
  unwritten.delete(log);
  if (unwritten.size === 0) process.off('exit', closeAll);
}
