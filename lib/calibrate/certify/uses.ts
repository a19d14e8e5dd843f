/**
 * Counts the calibrations that have read images to certify. A promise holds for a policy that was chosen without the images that
 * certify it; anyone who calibrates again on the same images, after a failure or to keep the better result, has chosen by them. That
 * can't be prevented, but counted: a file of the user's holds a sketch of the images of every calibration on this machine.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';

const usesSchema = z.array(
  z.object({
    /** Identity of the calibration; older versions wrote that of its policy. */
    policy: z.string(),
    /**
     * The smallest hashes among the images: sets that overlap much share some of them (bottom-k sketch; Cohen 1997).
     */
    sketch: z.array(z.string()),
  }),
);
type Use = z.infer<typeof usesSchema>[number];

/** Hashes in a sketch, and hexadecimal digits that are kept of each. */
const [SKETCH, DIGITS] = [32, 16];
/** Most calibrations to remember. */
const MAX_USES = 1000;

/** The file: in the folder for state of the XDG base directory specification. */
export function usesFile(): string {
  const state = process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state');
  return join(state, 'residual-skip', 'certified.json');
}

/**
 * Records that images are about to certify.
 * @param calibration what determines its result, as JSON: the network, what is promised, the settings to test
 * @param certifiedOn hashes of the images
 * @returns how many different calibrations have read images of this set to certify, including this one, whether or not they made a
 * policy. Repeating the same calibration counts once.
 */
export async function recordUse(
  calibration: unknown,
  certifiedOn: readonly string[],
  file = usesFile(),
): Promise<number> {
  const use: Use = {
    policy: createHash('sha256').update(JSON.stringify(calibration)).digest('hex'),
    sketch: certifiedOn
      .map((sha256) => sha256.slice(0, DIGITS))
      .sort()
      .slice(0, SKETCH),
  };
  const known = (await usesIn(file)).filter((earlier) => earlier.policy !== use.policy);
  const hashes = new Set(use.sketch);
  const others = known.filter(({ sketch }) => sketch.some((hash) => hashes.has(hash)));
  await mkdir(dirname(file), { recursive: true });
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, `${JSON.stringify([...known, use].slice(-MAX_USES))}\n`);
  await rename(draft, file);
  return others.length + 1;
}

/** Empty if the file doesn't exist or wasn't written by this module. */
async function usesIn(file: string): Promise<Use[]> {
  try {
    return usesSchema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return [];
  }
}
