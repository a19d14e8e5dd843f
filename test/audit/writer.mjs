// Hands the runs in a file of v8.serialize to an audit log, again and again, until it is killed in the middle of it:
//   node writer.mjs DIST RUNS LOG
import fs, { readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { deserialize } from 'node:v8';

// A disk that takes little at a time, so that nearly every kill comes in the middle of a write.
const { write } = fs;
fs.write = (fd, bytes, from, length, at, done) =>
  write(fd, bytes, from, Math.min(length, 1 + Math.floor(2000 * Math.random())), at, done);
syncBuiltinESMExports();

const [dist, runs, path] = process.argv.slice(2);
const { auditLog } = await import(pathToFileURL(join(dist, 'audit/log.js')));
const { SKIP_REASONS } = await import(pathToFileURL(join(dist, 'skip/trace.js')));
const events = deserialize(readFileSync(runs)).map((event) => ({
  ...event,
  decisionsOf(item) {
    const { blocks, exits, multiplyAddsSkipped } = event.trace.items[item];
    const what = (key) => (block) => blocks[block][key];
    return {
      exits,
      ran: what('ran'),
      score: what('score'),
      threshold: what('threshold'),
      reason: what('reason'),
      multiplyAddsSkipped: () => multiplyAddsSkipped,
      spentMore: () => true,
      copyTo(ran, reasons, scores, at) {
        for (const [i, block] of blocks.entries()) {
          ran[at + i] = block.ran ? 1 : 0;
          reasons[at + i] = SKIP_REASONS.indexOf(block.reason);
          scores[at + i] = block.score ?? Number.NaN;
        }
      },
    };
  },
}));
const log = auditLog({ path });
for (;;) {
  for (const event of events) log.onRun(event);
  await setImmediate();
}
