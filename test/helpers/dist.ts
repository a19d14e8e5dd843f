import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const ROOT = resolve(__dirname, '../..');
/** The compiled package, for tests in a separate process; RSKIP_DIST overrides the checkout's. */
export const DIST = process.env.RSKIP_DIST ?? join(ROOT, 'dist');
/** Skips unless `npm run compile` has built the package. */
export const describeBuilt = existsSync(join(DIST, 'cli/main.js')) ? describe : describe.skip;
