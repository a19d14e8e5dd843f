/** Sessions that run one length after another, compared with programs compiled for one length alone. */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type Feeds, InferenceSession, ResidualSkipError, Tensor } from 'lib/index.js';
import { range, sizeOf } from 'lib/numeric/shapes.js';
import { randomFloats } from '../helpers/random.js';
import { Random } from './random.js';

/** The most that lengths of one model differ: those of a text or signal, and those of an image's sides. */
const MOST = { 3: 56, 4: 16 } as Record<number, number>;

/** So many lengths are compiled in any case. */
const FIRST = 4;

/** Whether k (k - 1) / 2 is a multiple of m. */
const fits = (k: number, m: number) => ((k * (k - 1)) / 2) % m === 0;

/**
 * For even a and odd m, floor(length / 2) is on one polynomial of second degree at a, a + 1, a + m and a + m + 1, which is whole where
 * k = length - a fits. Most lists begin with such lengths; all go on with some between them, and end with one anywhere.
 */
function lengthsOf(random: Random, most: number): number[] {
  const shortest = 10 + random.below(8);
  const spans = range(most).filter((m) => m % 2 === 1 && range(m).some((k) => k > 1 && fits(k, m)));
  const span = random.pick(spans);
  const between = (count: number) => range(count).map(() => shortest + random.below(span + 1));
  const later = [...between(2), 8 + random.below(most)];
  if (random.chance(0.2)) return [shortest, shortest + span + 1, ...between(4), ...later];
  const whole = range(span).filter((k) => k > 1 && fits(k, span));
  const special = [0, 1, span, span + 1, ...whole].map((k) => shortest + k);
  return [...special, ...later];
}

/** What a run gives: elements and decisions, or an error. */
function outcomeOf(session: InferenceSession, feeds: Feeds): unknown {
  try {
    const { outputs, trace } = session.runTracedSync(feeds);
    return [Object.values(outputs).map(({ dims, data }) => [dims, data]), trace.items];
  } catch (error) {
    if (!(error instanceof ResidualSkipError) || error.code === 'INTERNAL') throw error;
    return error.message;
  }
}

/**
 * Runs a model at lengths that its bytes determine.
 * @returns the lengths at which the session and a new one differ in any bit
 */
export async function lengthDifferences(
  bytes: Uint8Array,
  backend: 'native' | 'reference',
): Promise<string[]> {
  const random = new Random(createHash('sha256').update(bytes).digest().readInt32LE(), bytes.length);
  const create = () => InferenceSession.create(bytes, { backend, threads: 1 });
  const aloneAt = async (feeds: Feeds) => {
    const alone = await create();
    const outcome = outcomeOf(alone, feeds);
    await alone.release();
    return outcome;
  };
  const session = await create();
  const [{ name, shape }] = session.inputMetadata as [InferenceSession['inputMetadata'][number]];
  const differences: string[] = [];
  const ran: number[] = [];
  for (const length of lengthsOf(random, MOST[shape.length]!)) {
    const dims = shape.map((dim, axis) =>
      typeof dim === 'number' ? dim : axis > 0 ? length : 1 + random.below(2),
    );
    const feeds = { [name]: new Tensor('float32', randomFloats(sizeOf(dims), length), dims) };
    const outcome = outcomeOf(session, feeds);
    if (ran.length >= FIRST && !isDeepStrictEqual(outcome, await aloneAt(feeds))) {
      differences.push(`difference: length ${length} after ${ran} on the ${backend} backend`);
    }
    ran.push(length);
  }
  await session.release();
  return differences;
}
