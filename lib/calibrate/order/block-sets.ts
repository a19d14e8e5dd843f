/** The order of sets of blocks that no item runs, for networks whose answers are vectors. */
import type { Program } from '../../model/program/program.js';
import { hasGates } from '../task.js';

/** Blocks that are tried beside those of a set: the ones that did least harm when they were tried before. */
const TRIED = 4;

/** Most sets that are tried. */
export function setsTried(blocks: number): number {
  return blocks * (1 + TRIED);
}

/**
 * Sets of blocks to leave out, each with one more than the one before: the one that adds least risk for what it saves. Where the
 * network has gates of its own, the first set is empty.
 * @param riskOf mean loss with a set left out
 * @param limit sets with a higher risk are not worth a test
 */
export async function blockSets(
  program: Program,
  riskOf: (omitted: ReadonlySet<number>) => Promise<number>,
  limit: number,
): Promise<ReadonlySet<number>[]> {
  const sets: ReadonlySet<number>[] = [];
  let [set, risk] = [new Set<number>(), 0];
  if (hasGates(program)) {
    risk = await riskOf(set);
    if (risk > limit) return [];
    sets.push(set);
  }
  // Those that did least harm first.
  let left = [...program.blocks.keys()].filter((i) => program.blocks[i]!.skippable);
  while (left.length > 0) {
    const tried: { readonly block: number; readonly risk: number; readonly harm: number }[] = [];
    for (const block of left.slice(0, set.size === 0 ? left.length : TRIED)) {
      const next = await riskOf(new Set([...set, block]));
      const { multiplyAdds } = program.blocks[block]!.cost;
      tried.push({ block, risk: next, harm: (next - risk) / Math.max(1, multiplyAdds) });
    }
    tried.sort((a, b) => a.harm - b.harm);
    const best = tried.find((one) => one.risk <= limit);
    if (!best) break;
    set = new Set([...set, best.block]);
    risk = best.risk;
    sets.push(set);
    const known = new Set(tried.map(({ block }) => block));
    left = [...tried.map(({ block }) => block), ...left.filter((block) => !known.has(block))].filter(
      (block) => block !== best.block,
    );
  }
  return sets;
}
