import * as fs from 'node:fs';

type Stat = (path: string, done: (error: NodeJS.ErrnoException | null, stat?: fs.Stats) => void) => void;
type Mkdir = (path: string, done: (error: NodeJS.ErrnoException | null) => void) => void;

/**
 * File functions for one lock of proper-lockfile, which compares the time of another process's lock with the clock of this one: on
 * machines whose clocks differ, it would take locks from processes that run. To these functions, such a lock is as old as this process has
 * seen it unchanged.
 */
export function lockFs(): object {
  let own = false;
  let seen: { readonly time: number; readonly since: number } | undefined;
  const mkdir: Mkdir = (path, done) =>
    fs.mkdir(path, (error) => {
      own = error === null;
      done(error);
    });
  const stat: Stat = (path, done) =>
    fs.stat(path, (error, found) => {
      if (error || own) return done(error, found);
      const now = performance.now();
      if (seen?.time !== found.mtimeMs) seen = { time: found.mtimeMs, since: now };
      done(null, Object.assign(found, { mtime: new Date(Date.now() - (now - seen!.since)) }));
    });
  return { ...fs, mkdir, stat };
}
