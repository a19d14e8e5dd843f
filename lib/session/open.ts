import type { SessionParts } from './parts.js';
import { Runner } from './runner.js';
import { openTail } from './tail.js';

/** What runs a session loads with it; what lowers networks doesn't. */
export async function openRunner(parts: SessionParts): Promise<Runner> {
  const { staged } = parts.network;
  return new Runner(parts, staged && (await openTail(staged, parts.backend)));
}
