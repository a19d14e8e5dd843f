import type { SessionParts } from './parts.js';
import { Runner } from './runner.js';

/** What runs a session: with it, everything that compiles networks loads. */
export async function openRunner(parts: SessionParts): Promise<Runner> {
  return new Runner(parts);
}
