import type { Budget } from '../../../lib/calibrate/budget.js';
import type { Judge, Judged, Measured } from '../../../lib/calibrate/judge.js';
import type { Lever } from '../../../lib/calibrate/levers.js';
import { bestSettings, type Setting, worthTesting } from '../../../lib/calibrate/settings.js';
import { ResidualSkipError } from '../../../lib/errors.js';
import type { Heads } from '../../../lib/skip/attach.js';

const ROWS = 200;
const head = { features: 'mean', layers: [] } as const;
const trial = { features: 'grid', layers: [] } as const;
const scores = Float64Array.from({ length: ROWS }, (_, i) => i / ROWS);
const risks = scores.map((score) => (1 - score) ** 4 / 4);
const exit: Lever = { kind: 'exit', block: 'a', head, trial, saving: 0.5, scores, risks };
/** What the exit lets pass, they may skip. */
const less = risks.map((risk) => risk / 20);
const gate: Lever = { kind: 'gate', block: 'b', head, trial, saving: 0.1, scores, risks: less };
const reader: Lever = { kind: 'confidence', block: 'b', reads: 'a', saving: 0.1, scores, risks: less };
const order: Judged = { items: [], answers: [], scores: [] };

/** Measures what `saves` says of a setting, at the risk that `risk` says. */
function judging(saves: (heads: Heads) => number, risk: (heads: Heads) => number = () => 0) {
  const seen: Heads[] = [];
  const judge: Pick<Judge, 'measure'> = {
    measure: async (heads) => {
      seen.push(heads);
      return { risk: risk(heads), multiplyAddsSkipped: saves(heads) } as Measured;
    },
  };
  return { judge, seen };
}

const ofExit = ({ exits: [first] }: Heads) => (first ? 0.5 * (1 - first.threshold) : 0);
const kindsOf = (settings: readonly Setting[]) => {
  const gates = settings.flatMap(({ heads }) => heads.gates);
  return { head: gates.some((spec) => 'head' in spec), read: gates.some((spec) => 'confidenceOf' in spec) };
};
const best = (judge: Pick<Judge, 'measure'>) => bestSettings([exit, gate, reader], judge, order, 0.01, 24);

describe('gates are part of the order of settings', () => {
  test('not where they save less than one percent on the items that order', async () => {
    const { judge } = judging((heads) => ofExit(heads) + (heads.gates.length > 0 ? 0.009 : 0));
    expect(kindsOf(await best(judge))).toEqual({ head: false, read: false });
  });

  test('with heads where those earn it', async () => {
    const { judge } = judging((heads) => ofExit(heads) + (heads.gates.some((g) => 'head' in g) ? 0.05 : 0));
    expect(kindsOf(await best(judge)).head).toBe(true);
  });

  test('reading an exit where that earns it', async () => {
    const { judge } = judging(
      (heads) => ofExit(heads) + (heads.gates.some((g) => 'confidenceOf' in g) ? 0.05 : 0),
    );
    expect(kindsOf(await best(judge))).toEqual({ head: false, read: true });
  });

  test('not where they break the limit', async () => {
    const { judge } = judging(
      (heads) => ofExit(heads) + 0.05 * heads.gates.length,
      (heads) => (heads.gates.length > 0 ? 0.015 : 0),
    );
    expect(kindsOf(await best(judge))).toEqual({ head: false, read: false });
  });

  test('and are judged by heads that were fitted without those items', async () => {
    const { judge, seen } = judging(ofExit);
    await worthTesting(await best(judge), judge, order, 0.02, undefined);
    expect(seen.length).toBeGreaterThan(24);
    expect(seen.every(({ exits }) => exits.every((own) => own.head === trial))).toBe(true);
  });
});

test('a budget is judged by heads that were fitted without the items it is measured on', async () => {
  const asked: Heads[] = [];
  const budget: Budget = {
    most: 0.9,
    spent: (heads, { multiplyAddsSkipped }) => {
      asked.push(heads);
      return 1 - multiplyAddsSkipped;
    },
    outOfReach: () => new ResidualSkipError('INVALID_ARGUMENT', ''),
  };
  const { judge } = judging(ofExit);
  const worth = await worthTesting(await best(judge), judge, order, 0.02, budget);
  expect(worth.at(-1)!.heads.exits[0]!.head).toBe(head);
  expect(asked.length).toBeGreaterThan(0);
  expect(asked.every(({ exits }) => exits.every((own) => own.head === trial))).toBe(true);
});

describe('of the settings', () => {
  const settings = Array.from({ length: 40 }, (_, i): Setting => {
    const heads: Heads = { exits: [{ after: 'a', head, threshold: 1 - 0.0022 * (i + 1) }], gates: [] };
    return { price: 100 - i, heads, trial: heads };
  });

  test('those are tested that save half a percent more than the one before', async () => {
    const { judge } = judging(ofExit);
    const worth = await worthTesting(settings, judge, order, 0.02, undefined);
    expect(worth.map(({ price }) => price)).toEqual([96, 91, 86, 81, 76, 71, 66, 61]);
  });

  test('none is tested from the first on that breaks the limit', async () => {
    const { judge, seen } = judging(ofExit, (heads) => ofExit(heads));
    const worth = await worthTesting(settings, judge, order, 0.02, undefined);
    expect(worth.map(({ price }) => price)).toEqual([96, 91, 86]);
    expect(seen).toHaveLength(19);
  });

  test('the first within a budget is the last, whatever it gains', async () => {
    const { judge } = judging(ofExit);
    const budget = {
      most: 0.993,
      spent: (_: Heads, measured: Measured) => 1 - measured.multiplyAddsSkipped,
      outOfReach: () => new Error(),
    };
    const worth = await worthTesting(settings, judge, order, 1, budget as never);
    expect(worth.map(({ price }) => price)).toEqual([96, 94]);
  });
});
