import { InferenceSession, type Isa, ResidualSkipError, type SessionOptions } from 'lib/index.js';
import { ISAS } from 'lib/session/options.js';

/** The instruction sets that the native backend can use on this machine. */
export async function availableIsas(model: string | Uint8Array): Promise<Isa[]> {
  const available: Isa[] = [];
  for (const isa of ISAS) {
    try {
      await withSession(model, { isa }, async () => void available.push(isa));
    } catch (error) {
      if (!(error instanceof ResidualSkipError) || error.code !== 'ISA_UNAVAILABLE') throw error;
    }
  }
  return available;
}

/** Hands a session to `use` and releases it. */
export async function withSession<T>(
  model: string | Uint8Array,
  options: SessionOptions,
  use: (session: InferenceSession) => Promise<T>,
): Promise<T> {
  const session = await InferenceSession.create(model, options);
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}
