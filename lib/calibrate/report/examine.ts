/** The effect of a policy on the items that certify it, by class and item by item: for tables and reports. */
import type { Program } from '../../model/program/program.js';
import { type AnyExit, costsOfExits, placeOf, workBeyond } from '../../skip/exits.js';
import { append } from '../../util/maps.js';
import { className } from '../losses.js';
import type { Measured } from '../order/measure.js';
import type { Table } from '../order/table.js';
import type { ClassResult, Contribution, Example, Rung } from './result.js';

/** Examples of the items that skip most, and of those that skip least. */
const EXAMPLES = 8;

/** The saving of each exit: the rest of the network for items that leave, minus its head for all that reach it. */
export function contributionsOf(
  { program }: Table,
  exits: readonly AnyExit[],
  result: Measured,
): Contribution[] {
  const { multiplyAdds } = program.cost;
  const costs = costsOfExits(program, exits);
  return exits.map((exit, e) => {
    const { after } = exit;
    const rest = workBehind(program, exit);
    const [rate, reached] = [result.exits[after]!, result.reached[after]!];
    const multiplyAddsSkipped = (rate * rest - reached * costs[e]!) / multiplyAdds;
    return { kind: 'exit', block: after, rate, multiplyAddsSkipped };
  });
}

/** What answers the items, in the network's order. */
export function rungsOf({ program }: Table, exits: readonly AnyExit[], { byItem }: Measured): Rung[] {
  const { multiplyAdds } = program.cost;
  const items = byItem.left.length;
  let heads = 0;
  const rung = (name: string | null, behind: number): Rung => {
    const those = [...byItem.left.keys()].filter((i) => byItem.left[i] === name);
    return {
      name,
      answered: those.length / items,
      events: those.filter((i) => byItem.losses[i]! > 0).length,
      work: (multiplyAdds - behind + heads) / multiplyAdds,
    };
  };
  const costs = costsOfExits(program, exits);
  const rungs = exits.map((exit, e) => {
    heads += costs[e]!;
    return rung(exit.after, workBehind(program, exit));
  });
  return [...rungs, rung(null, 0)];
}

/** Multiply-adds of the network behind an exit. */
function workBehind(program: Program, exit: AnyExit): number {
  const { blocks } = program;
  const at = blocks.findIndex(({ name }) => name === exit.after);
  const beyond = workBeyond(program, placeOf(program, exit));
  return blocks.slice(at + 1).reduce((sum, block) => sum + block.cost.multiplyAdds, beyond);
}

/** @param classes of the items, by index */
export function byClass(
  classes: readonly number[],
  result: Measured | undefined,
  labels: readonly string[] | undefined,
): ClassResult[] {
  const members = new Map<number, number[]>();
  for (const [i, index] of classes.entries()) append(members, index, i);
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
  { items, answers }: Table,
  result: Measured | undefined,
  labels: readonly string[] | undefined,
): { most: Example[]; least: Example[] } {
  if (!result) return { most: [], least: [] };
  const { saved, ran, left, answers: given } = result.byItem;
  // Ties go by content, so that the order of the items doesn't matter.
  const order = items
    .map((_, i) => i)
    .sort((a, b) => saved[b]! - saved[a]! || (items[a]!.sha256 < items[b]!.sha256 ? -1 : 1));
  const example = (i: number): Example => ({
    sha256: items[i]!.sha256,
    answer: className(given[i]!, labels),
    fullAnswer: className(answers[i]!, labels),
    exit: left[i]!,
    ran: ran[i]!,
    multiplyAddsSkipped: saved[i]!,
  });
  return {
    most: order.slice(0, EXAMPLES).map(example),
    least: order.slice(-EXAMPLES).reverse().map(example),
  };
}
