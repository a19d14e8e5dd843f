import { Dial, headsOf, prices } from '../../../lib/calibrate/dial.js';
import type { ConfidenceLever, HeadLever, Lever } from '../../../lib/calibrate/levers.js';
import { uniform } from '../../helpers/random.js';

const head = { features: 'mean', layers: [] } as const;
const trial = { features: 'grid', layers: [] } as const;

function lever(
  kind: 'exit' | 'gate',
  block: string,
  saving: number,
  rows: readonly [number, number][],
): HeadLever {
  const scores = Float64Array.from(rows, ([score]) => score);
  const risks = Float64Array.from(rows, ([, risk]) => risk);
  return { kind, block, head, trial, saving, scores, risks };
}

function reader(block: string, reads: string, saving: number, of: Lever, risk: number): ConfidenceLever {
  const { scores } = of;
  return { kind: 'confidence', block, reads, saving, scores, risks: scores.map(() => risk) };
}

/** Saving and risks over the rows under some thresholds, counted in the plainest way. */
function outcome(exits: readonly Lever[], thresholds: readonly number[]): { saved: number; lost: number } {
  let [saved, lost] = [0, 0];
  for (const row of exits[0]!.scores.keys()) {
    const taken = exits.find(({ scores }, e) => scores[row]! >= thresholds[e]!);
    saved += taken?.saving ?? 0;
    lost += taken?.risks[row] ?? 0;
  }
  return { saved, lost };
}

/** Exits whose answers are the likelier wrong, the lower the score. */
function someExits(seed: number, savings: readonly number[]): Lever[] {
  const random = uniform(seed);
  return savings.map((saving, e) =>
    lever(
      'exit',
      `b${e}`,
      saving,
      Array.from({ length: 40 }, () => {
        const score = random();
        return [score, Number(random() > 0.5 + score / 2 + 0.2 * e)];
      }),
    ),
  );
}

test.each([1, 2, 3, 4])('no single threshold can be bettered, example %d', (seed) => {
  const exits = someExits(seed, [0.6, 0.4, 0.2]);
  const dial = new Dial(exits);
  for (const price of [20, 5, 1]) {
    const settings = dial.at(price);
    const thresholds = exits.map(
      (exit) => settings.find(({ lever }) => lever === exit)?.threshold ?? Number.POSITIVE_INFINITY,
    );
    const worth = (some: readonly number[]) => {
      const { saved, lost } = outcome(exits, some);
      return saved - price * lost;
    };
    const best = worth(thresholds);
    for (const [e, { scores }] of exits.entries()) {
      for (const threshold of [...scores, Number.POSITIVE_INFINITY]) {
        const other = worth(thresholds.map((own, i) => (i === e ? threshold : own)));
        // An exit is charged 0.4 % of the work of every row that comes to it.
        expect(other).toBeLessThanOrEqual(best + 0.004 * scores.length + 1e-9);
      }
    }
  }
});

test('a cheaper price never saves less nor changes fewer answers', () => {
  const exits = someExits(9, [0.7, 0.5, 0.3, 0.1]);
  const dial = new Dial(exits);
  let before = { saved: 0, lost: 0 };
  for (const price of [100, 30, 10, 3, 1, 0.1]) {
    const settings = dial.at(price);
    const now = outcome(
      exits,
      exits.map(
        (exit) => settings.find(({ lever }) => lever === exit)?.threshold ?? Number.POSITIVE_INFINITY,
      ),
    );
    expect(now.saved).toBeGreaterThanOrEqual(before.saved);
    expect(now.lost).toBeGreaterThanOrEqual(before.lost);
    before = now;
  }
});

test('a gate counts only the rows that no exit before it took', () => {
  const exit = lever('exit', 'a', 0.5, [
    [0.9, 0],
    [0.8, 0],
    [0.1, 1],
    [0.2, 1],
    [0.3, 1],
  ]);
  const gate = lever('gate', 'b', 0.4, [
    [3, 1],
    [4, 1],
    [5, 0],
    [6, 0],
    [7, 0],
  ]);
  const settings = new Dial([exit, gate]).at(1);
  expect(settings).toEqual([
    { lever: exit, threshold: 0.8 },
    { lever: gate, threshold: 5 },
  ]);
  // Before the exit, the gate meets all rows; the two that would change lie below its threshold anyway.
  expect(new Dial([gate, exit]).at(1)[0]).toEqual({ lever: gate, threshold: 5 });
  expect(headsOf(settings)).toEqual({
    exits: [{ after: 'a', head, threshold: 0.8 }],
    gates: [{ block: 'b', head, threshold: -5 }],
  });
  expect(headsOf(settings, 'trial')).toEqual({
    exits: [{ after: 'a', head: trial, threshold: 0.8 }],
    gates: [{ block: 'b', head: trial, threshold: -5 }],
  });
});

test('rows with the same score are pulled together, or not at all', () => {
  const exit = lever('exit', 'a', 0.5, [
    [0.7, 0],
    [0.5, 0],
    [0.5, 1],
    [0.5, 1],
  ]);
  expect(new Dial([exit]).at(0.9)).toEqual([{ lever: exit, threshold: 0.7 }]);
});

test('prices fall', () => {
  const list = prices(5);
  expect(list).toHaveLength(5);
  expect([...list].sort((a, b) => b - a)).toEqual(list);
});

test('an exit that hardly anything takes is not worth asking', () => {
  const rows = Array.from({ length: 200 }, (_, i) => [i / 200, Number(i < 199)] as [number, number]);
  expect(new Dial([lever('exit', 'a', 0.5, rows)]).at(1)).toEqual([]);
  const more = rows.map(([score], i) => [score, Number(i < 190)] as [number, number]);
  expect(new Dial([lever('exit', 'a', 0.5, more)]).at(1)).toHaveLength(1);
});

describe('a gate that reads the exit in front of it', () => {
  const exits = someExits(3, [0.8, 0.5]) as [HeadLever, HeadLever];
  const [first, second] = exits.map((exit) => ({ ...exit, risks: exit.scores.map((score) => 1 - score) }));
  const gate = lever(
    'gate',
    'c',
    0.1,
    Array.from({ length: 40 }, (_, i) => [i, 0.02] as const),
  );
  const readers = [reader('c', 'b0', 0.1, first!, 0.001), reader('c', 'b1', 0.1, second!, 0.001)];
  const kinds = (levers: readonly Lever[], price: number) =>
    new Dial(levers).at(price).map(({ lever }) => lever);

  test('is taken where it is worth more than a gate with a head', () => {
    expect(kinds([first!, second!, gate, ...readers], 4)).toEqual([first, second, readers[1]]);
    const risky = readers.map((own) => ({ ...own, risks: own.risks.map(() => 0.03) }));
    expect(kinds([first!, second!, gate, ...risky], 4)).toEqual([first, second, gate]);
  });

  test('reads the last exit that is there, and none when there is none', () => {
    const useless = { ...second!, risks: second!.risks.map(() => 1) };
    const settings = new Dial([first!, useless, ...readers]).at(4);
    expect(settings.map(({ lever }) => lever)).toEqual([first, readers[0]]);
    expect(headsOf(settings).gates).toEqual([
      { block: 'c', confidenceOf: 'b0', threshold: settings[1]!.threshold },
    ]);
    expect(kinds(readers, 4)).toEqual([]);
  });
});
