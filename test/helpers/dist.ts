import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const ROOT = resolve(__dirname, '../..');
/** The compiled package, for tests that need a process of their own; RSKIP_DIST names another than the checkout's. */
export const DIST = process.env.RSKIP_DIST ?? join(ROOT, 'dist');
/** `npm run compile` makes it; a checkout that was only type-checked has none. */
export const describeBuilt = existsSync(join(DIST, 'cli/main.js')) ? describe : describe.skip;
