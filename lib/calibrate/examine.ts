/** What a policy did to the items that certify it, by class and one by one: for tables and reports. */
import type { Program } from '../model/program.js';
import { attachHeads, type Heads } from '../skip/attach.js';
import type { ClassResult, Contribution, Example } from './calibration.js';
import { className } from './groups.js';
import type { Judged, Measured } from './judge.js';

/** Items shown of those that skip most, and of those that skip least. */
const EXAMPLES = 8;

/** What saves how much: an exit the rest of the network, a gate its block; each less what its head costs. */
export function contributionsOf(
  program: Program,
  heads: Heads | undefined,
  result: Measured | undefined,
): Contribution[] {
  if (!heads || !result) return [];
  const { blocks, cost } = attachHeads(program, heads);
  const share = (from: number, to: number) =>
    blocks.slice(from, to).reduce((sum, block) => sum + block.cost.multiplyAdds, 0) / cost.multiplyAdds;
  const rates = { gate: result.skips, exit: result.exits } as const;
  return blocks.flatMap(({ name: block, gate, heads: asking }, i) =>
    (['gate', 'exit'] as const).flatMap((place): Contribution[] => {
      const rate = rates[place][block];
      if (rate === undefined) return [];
      const beyond = (asking?.beyond ?? 0) / cost.multiplyAdds;
      const saving = place === 'gate' ? share(i, i + 1) : share(i + 1, blocks.length) + beyond;
      const spent = ((asking?.[place] ?? 0) * result.asked[place][block]!) / cost.multiplyAdds;
      const kind = place === 'gate' && gate?.form === 'confidence' ? 'confidence' : place;
      return [{ kind, block, rate, multiplyAddsSkipped: rate * saving - spent }];
    }),
  );
}

/** @param classes of the items, by index */
export function byClass(
  classes: readonly number[],
  result: Measured | undefined,
  labels: readonly string[] | undefined,
): ClassResult[] {
  const members = new Map<number, number[]>();
  for (const [i, index] of classes.entries()) members.set(index, [...(members.get(index) ?? []), i]);
  const sum = (some: readonly number[], value: (i: number) => number) =>
    some.reduce((total, i) => total + value(i), 0);
  return [...members]
    .sort(([a], [b]) => a - b)
    .map(([index, some]) => ({
      label: className(index, labels),
      items: some.length,
      events: sum(some, (i) => (result && result.byItem.losses[i]! > 0 ? 1 : 0)),
      risk: sum(some, (i) => result?.byItem.losses[i] ?? 0) / some.length,
      multiplyAddsSkipped: sum(some, (i) => result?.byItem.saved[i] ?? 0) / some.length,
    }));
}

export function examplesOf(
  { items, answers }: Judged,
  result: Measured | undefined,
  labels: readonly string[] | undefined,
): { most: Example[]; least: Example[] } {
  if (!result) return { most: [], least: [] };
  const { saved, ran, answers: given } = result.byItem;
  // Ties go by content, so that the order of the items doesn't matter.
  const order = items
    .map((_, i) => i)
    .sort((a, b) => saved[b]! - saved[a]! || (items[a]!.sha256 < items[b]!.sha256 ? -1 : 1));
  const example = (i: number): Example => ({
    sha256: items[i]!.sha256,
    answer: className(given[i]!, labels),
    fullAnswer: className(answers[i]!, labels),
    ran: ran[i]!,
    multiplyAddsSkipped: saved[i]!,
  });
  return {
    most: order.slice(0, EXAMPLES).map(example),
    least: order.slice(-EXAMPLES).reverse().map(example),
  };
}
